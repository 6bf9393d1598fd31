"""Model servers that the run starts: real processes, started, killed, started again and ended, and none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import AUTOIF, SMALL, tree, wait_for_completions
from running import command, counts_add_up, run_json

from autoif_blocks.context import RunContext, RunSettings
from autoif_blocks.errors import BudgetSpent, ModelUnavailable, RecipeError
from autoif_blocks.ping import ping
from autoif_blocks.plan import estimate
from autoif_blocks.preview import preview
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.servers import server_specs
from autoif_blocks.serving import ServerSpec, ServerState, supervisor

SERVERS = Path(__file__).with_name("servers.py")
TEACHER = f"serve: {SERVERS}:Teacher"
STEPS = """steps:
  - {name: given, block: read_lines, path: in.txt}
  - {name: r, block: respond, n: 2, prompt: 'say {{ instruction }}'}
"""
MARK = "AUTOIF_TEST_MARK"


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What all processes that a test starts have in their environment. None may be left when it ends."""
    word = uuid4().hex
    monkeypatch.setenv(MARK, word)
    yield word
    assert left(word) == []


def left(word: str, patience: float = 10.0) -> list[str]:
    until = time.monotonic() + patience
    while (found := marked(word)) and time.monotonic() < until:
        time.sleep(0.05)
    return list(found.values())


def marked(word: str, holding: str = "") -> dict[int, str]:
    """The processes with that mark by their number, other than this one, whose command line holds some words."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.name != str(os.getpid()) and f"{MARK}={word}".encode() in (path / "environ").read_bytes():
                line = (path / "cmdline").read_text().replace("\0", " ")
                if holding in line and (path / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found[int(path.name)] = line
    return found


def project(folder: Path, model: str, more: str = "", records: int = 30) -> Path:
    """A small recipe."""
    folder.mkdir(exist_ok=True)
    (folder / "in.txt").write_text("".join(f"number {i}\n" for i in range(records)))
    path = folder / "r.yaml"
    model += "" if "model:" in model else ", model: m"
    path.write_text(f"output_dir: {folder / 'out'}\n{more}\nmodels: {{teacher: {{{model}}}}}\n{STEPS}")
    return path


def script(code: str) -> str:
    return f"serve: {SERVERS}:Script, model: {json.dumps(code)}"


class Notes:
    """A listener that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def started(self, *_: object) -> None: ...
    def note(self, text: str) -> None:
        self.said.append(text)

    def watching(self, *_: object) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


# A run


def test_a_served_model_gives_the_bytes_of_one_that_is_there_and_a_replay_starts_none(tmp_path: Path) -> None:
    Recipe.load(project(tmp_path / "a", "base_url: simulated")).run()
    notes = Notes()
    path = project(tmp_path / "b", TEACHER)
    done = Recipe.load(path).run(RunOptions(listener=notes))
    assert (done["totals"]["requests"], done["totals"]["retries"]) == (30, 0)
    assert tree(tmp_path / "b" / "out") == (whole := tree(tmp_path / "a" / "out"))
    assert [note.split(" ", 1)[0] for note in notes.said] == ["starting", "model"]
    assert "is ready after" in notes.said[1]
    log = tmp_path / "b" / "out" / "logs" / "teacher.server.log"
    assert "http://127.0.0.1:" in log.read_text()

    project(tmp_path / "b", f"serve: {SERVERS}:NoBinary")
    assert Recipe.load(path).run()["totals"]["requests"] == 0
    assert tree(tmp_path / "b" / "out") == whole


@pytest.mark.heavy
@pytest.mark.parametrize("tasks", [1, 3])
def test_the_ten_steps_have_one_server_for_both_roles(tmp_path: Path, mark: str, tasks: int) -> None:
    text = AUTOIF.read_text().replace("sample_data/", f"{AUTOIF.parent}/sample_data/")
    (tmp_path / "r.yaml").write_text(text.replace("base_url: ${AUTOIF_BASE_URL:-simulated}", TEACHER))
    subprocess.run(command(tmp_path / "whole", "--quiet"), check=True)
    more = [f"--set=executor.{option}={tasks}" for option in ("tasks", "workers")]
    served = [sys.executable, "-m", "autoif_blocks", "run", str(tmp_path / "r.yaml"), *SMALL, *more]
    run = subprocess.run([*served, "--output-dir", str(tmp_path / "out")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("starting /") == 1
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    counts_add_up(tmp_path / "out")


@pytest.mark.heavy
@pytest.mark.parametrize("victim", ["autoif_blocks.teacher", "autoif_blocks.serving.host"])
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_server_that_is_killed_is_started_again_and_nothing_is_lost(
    tmp_path: Path, mark: str, victim: str, tasks: int
) -> None:
    Recipe.load(project(tmp_path / "a", "base_url: simulated")).run()
    slow = "serve_options: {latency: 0.4, latency-sigma: 0}, max_concurrency: 4, max_retries: 0"
    path = project(tmp_path / "b", f"{TEACHER}, {slow}", f"executor: {{tasks: {tasks}, workers: {tasks}}}")
    run = subprocess.Popen([sys.executable, "-m", "autoif_blocks", "run", str(path)], stderr=subprocess.PIPE, text=True)
    wait_for_completions(tmp_path / "b" / "out", 8)
    (pid,) = marked(mark, victim)
    os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert "it is started again in 1 s" in said
    assert said.count("is ready after") == 2
    assert tree(tmp_path / "b" / "out") == tree(tmp_path / "a" / "out")
    counts_add_up(tmp_path / "b" / "out")
    totals = run_json(tmp_path / "b" / "out")["totals"]
    assert totals["completions"] == 60
    assert totals["retries"] == 0  # an outage is no attempt, even where a request may have but one


@pytest.mark.heavy
def test_plan_and_preview_start_it_too(tmp_path: Path) -> None:
    path = project(tmp_path, TEACHER)
    assert estimate(Recipe.load(path), 5).totals["requests"] == 30
    shutil.rmtree(tmp_path / "out")
    passages = preview(Recipe.load(path), "r", 2)
    assert all(len(passage.made) == 2 for passage in passages)


# Servers that do not come up


ORPHANING = "import subprocess, sys; subprocess.Popen(['sleep', '98']); sys.exit('gone')"
NEVER = "import time; print('loading', flush=True); time.sleep(99)"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (script("import sys; print('no CUDA'); sys.exit('too\\n  old')"), r"ended with exit code 1\. Its log, .*old$"),
        pytest.param(
            script("import os; os.kill(os.getpid(), 9)"),
            r"was killed by SIGKILL\. It has said nothing",
            marks=pytest.mark.heavy,
        ),
        pytest.param(script(ORPHANING), r"ended with exit code 1\. Its log, .*\n  gone$", marks=pytest.mark.heavy),
        (f"{script(NEVER)}, start_timeout: 1.5", r"did not answer within 1\.5 s \(start_timeout\)\. Its .*\n  loading"),
        (f"serve: {SERVERS}:NoBinary", r"FileNotFoundError: .*no-such-server"),
        (f"serve: {SERVERS}:Picky, serve_options: {{colour: red}}", "ValueError: no red one"),
    ],
)
def test_one_that_does_not_come_up_ends_the_run_with_a_sentence(tmp_path: Path, model: str, said: str) -> None:
    notes = Notes()
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=f"(?s){said}") as caught:
        Recipe.load(project(tmp_path, model)).run(RunOptions(listener=notes))
    assert time.monotonic() - began < 6
    assert caught.value.exit_code == 3
    assert f"model 'teacher': the server that serve: {SERVERS}:" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert len([note for note in notes.said if note.startswith("starting")]) == 1
    failed = run_json(tmp_path / "out")
    assert (failed["state"], failed["failure"]) == ("failed", str(caught.value))


ENDS_WHEN_ASKED = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        print("out of memory", flush=True)
        os._exit(7)
    def log_message(self, *_): ...
http.server.HTTPServer(("localhost", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.heavy
def test_one_that_ends_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_PAUSES", (0.0, 0.05, 0.1))
    notes = Notes()
    with pytest.raises(ModelUnavailable, match=r"(?s)has ended 4 times within an hour, .* exit code 7.*out of memory"):
        Recipe.load(project(tmp_path, script(ENDS_WHEN_ASKED), records=3)).run(RunOptions(listener=notes))
    assert len([note for note in notes.said if "is started again" in note]) == 3
    assert (tmp_path / "out" / "logs" / "teacher.server.log").read_text().count("out of memory") == 4


# The end of a run


def test_a_budget_of_minutes_ends_a_run_whose_server_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent, match="minutes is used up"):
        Recipe.load(project(tmp_path, script(NEVER), "budget: {minutes: 0.03}")).run()
    assert run_json(tmp_path / "out")["state"] == "stopped"


@pytest.mark.heavy
def test_one_that_does_not_want_to_end_is_killed_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    assert Recipe.load(project(tmp_path, f"serve: {SERVERS}:Stubborn")).run()["records"] == 60
    assert 10 < time.monotonic() - began < 20


@pytest.mark.heavy
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("model", [script(NEVER), f"{TEACHER}, serve_options: {{latency: 0.5}}, max_concurrency: 4"])
def test_ctrl_c_ends_the_server_with_the_run(tmp_path: Path, mark: str, model: str, tasks: int) -> None:
    path = project(tmp_path, model, f"executor: {{tasks: {tasks}, workers: {tasks}}}")
    run = begun(path, mark, model)
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert time.monotonic() - began < 5, said
    assert run.returncode == 130, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert marked(mark) == {}


@pytest.mark.heavy
@pytest.mark.parametrize("model", [script(NEVER), f"{TEACHER}, serve_options: {{latency: 0.5}}, max_concurrency: 4"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_leaves_no_server_behind(
    tmp_path: Path, mark: str, model: str, end: signal.Signals
) -> None:
    run = begun(project(tmp_path, model), mark, model)
    assert marked(mark, "serving.host")
    os.kill(run.pid, end)
    if end == signal.SIGINT:  # a second one ends it at once, and leaves the server to itself
        time.sleep(0.3)
        os.kill(run.pid, end)
    run.communicate(timeout=30)
    assert left(mark, 5.0) == []


def begun(path: Path, mark: str, model: str) -> subprocess.Popen[str]:
    """A run in a session of its own that waits for its server, or for answers."""
    command = [sys.executable, "-m", "autoif_blocks", "run", str(path)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    if TEACHER in model:
        wait_for_completions(path.parent / "out", 4)
    until = time.monotonic() + 20
    while not marked(mark, "time.sleep(99)" if TEACHER not in model else "autoif_blocks.teacher"):
        assert time.monotonic() < until
        time.sleep(0.05)
    return run


# A server for each task


def test_each_task_has_a_server_of_its_own_where_the_run_has_none(tmp_path: Path, mark: str) -> None:
    recipe = Recipe.load(project(tmp_path, TEACHER))
    settings = RunSettings(
        str(tmp_path / "work" / "stage-0"), models=recipe.models, logs=str(tmp_path / "logs"),
        servers=server_specs(recipe.models, ["teacher"], tmp_path),
    )  # fmt: skip
    tasks = [RunContext(settings), RunContext(settings)]
    for rank, task in enumerate(tasks):
        task.open(rank)
    try:
        assert marked(mark) == {}  # nobody has asked
        clients = [task.client("teacher") for task in tasks]
        prompt = [{"role": "user", "content": "Say a word."}]
        asked = [
            asyncio.run_coroutine_threadsafe(client.complete(prompt), task.loop)
            for task, client in zip(tasks, clients, strict=True)
        ]
        assert all(answer.result(20)[0].text for answer in asked)
        assert clients[0].url != clients[1].url
        assert len(marked(mark, "autoif_blocks.teacher")) == 2
        tasks.pop().close(True)
        assert len(marked(mark, "autoif_blocks.teacher")) == 1
    finally:
        for task in tasks:
            task.close(True)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "teacher.server.00000.log", "teacher.server.00001.log",
    ]  # fmt: skip


def test_a_task_that_is_tried_again_does_not_believe_what_the_first_has_left(tmp_path: Path) -> None:
    state = tmp_path / "teacher.json"
    ServerState(3, "http://localhost:1/v1").write(state)
    (tmp_path / "teacher.wanted").touch()
    spec = ServerSpec("teacher", "none", "servers", "Teacher", "", 1.0)
    watching = supervisor.Supervisor(spec, state, tmp_path / "log", print)
    watching.stop()
    watching.join()
    assert ServerState.read(state) == ServerState()


# What is checked before


STAND_IN = f"""#!{sys.executable}
import sys
print(sys.argv[1:], flush=True)
sys.argv[1:] = ["--port", sys.argv[sys.argv.index("--port") + 1], "--models"]
from autoif_blocks.teacher.__main__ import main
main()
"""


def test_vllm_is_started_by_datatroves_own_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = "serve: vllm, tp: 4, pp: 2, context: 4096, serve_options: {enforce-eager: true, quantization: fp8}"
    path = project(tmp_path, model, records=2)
    with pytest.raises(RecipeError, match=r"model 'teacher': serve: vllm needs the package vllm .*: pip install vllm"):
        Recipe.load(path).run()
    (pong,) = ping(Recipe.load(path).models)
    assert (pong.ok, pong.url) == (False, "vllm")

    (tmp_path / "site" / "vllm").mkdir(parents=True)
    (tmp_path / "site" / "vllm" / "__init__.py").write_text("__version__ = '0'\n")
    (tmp_path / "site" / "vllm-0.dist-info").mkdir()
    (tmp_path / "site" / "vllm-0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0\n")
    (tmp_path / "vllm").write_text(STAND_IN)
    (tmp_path / "vllm").chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("VLLM_COMPILE_LOCK_DIR", str(tmp_path / "locks"))
    assert Recipe.load(path).run()["records"] == 4
    said = (tmp_path / "out" / "logs" / "teacher.server.log").read_text()
    for words in (
        "['serve', 'm', '--port', '", "'--max-model-len', '4096'", "'--tensor-parallel-size=4'",
        "'--pipeline-parallel-size=2'", "'--enforce-eager'", "'--quantization=fp8'",
    ):  # fmt: skip
        assert words in said
    (pong,) = ping(Recipe.load(path).models)
    assert (pong.ok, pong.said) == (True, "started by the run, with m")


def test_models_share_a_server_if_they_say_the_same_of_it(tmp_path: Path) -> None:
    path = project(tmp_path, TEACHER)
    models = f"{{a: {{model: m, {TEACHER}}}, b: {{model: m, {TEACHER}, rpm: 9}}, c: {{model: n, {TEACHER}}}}}"
    path.write_text(path.read_text().replace("models:", f"models: {models} #"))
    loaded = Recipe.load(path, ["steps.r.model=a"]).models
    specs = server_specs(loaded, ["a", "b", "c"], tmp_path)
    assert [specs[name].name for name in "abc"] == ["a", "a", "c"]


WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("max_n: 1", "base_url must name a server, .*; or serve: vllm starts one"),
    "both": (f"{TEACHER}, base_url: simulated", "leave base_url out, or serve"),
    "an option without it": ("base_url: simulated, tp: 4", "tp is for a server that the run starts: add serve"),
    "a mapping without it": ("base_url: simulated, serve_options: {a: 1}", "serve_options is for a server"),
    "tp": (f"{TEACHER}, tp: 0", "tp must be above 0, got 0"),
    "start_timeout": (f"{TEACHER}, start_timeout: 0", "start_timeout must be above 0, got 0"),
    "a typo": ("serve: vlm", "there is no server 'vlm'; did you mean 'vllm'"),
    "no class": (f"serve: {SERVERS}", r"name a class in it too: .*servers\.py:MyServer"),
    "no such class": (f"serve: {SERVERS}:Teecher", "servers has no 'Teecher'; did you mean 'Teacher'"),
    "no file": ("serve: none.py:Teacher", "there is no file .*none.py"),
    "a block": ("serve: autoif_blocks.blocks.filters.Limit", "is not a server: derive it from datatrove's"),
    "abstract": (f"serve: {SERVERS}:Lacking", "servers.py:Lacking must define monitor_health and start_server"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_served_model_is_told_by_its_line(tmp_path: Path, wrong: str) -> None:
    model, said = WRONG[wrong]
    with pytest.raises(RecipeError, match=rf"r\.yaml:3: model 'teacher': .*{said}"):
        Recipe.load(project(tmp_path, model))


@pytest.mark.parametrize(
    ("executor", "share"), [("type: local", 8), ("type: ray", 16), ("type: slurm, partition: p, time: '1'", 16)]
)
def test_a_server_of_its_own_takes_all_that_a_task_may_ask(tmp_path: Path, executor: str, share: int) -> None:
    path = project(tmp_path, f"{TEACHER}, max_concurrency: 16", f"executor: {{{executor}, tasks: 2, workers: 2}}")
    recipe = Recipe.load(path)
    assert recipe.executor.share(recipe.models["teacher"], 2).max_concurrency == share
    assert recipe.executor.share(recipe.models["teacher"], 1).max_concurrency == 16
    path.write_text(path.read_text().replace("tasks: 2, workers: 2", "tasks: 20, workers: 20"))
    if share == 16:
        Recipe.load(path)
        return
    with pytest.raises(RecipeError, match=r"max_concurrency is 16, and 20 tasks need at least 1 each"):
        Recipe.load(path)
