"""Runs as a user starts them: determinism, resume, stopping, refusals, counts, secrets. Over real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import AUTOIF, ROOT, SMALL, Bench, rows, tree, wait_for_completions

from autoif_blocks import AutoIF, Block, Record
from autoif_blocks.errors import AutoIFError, ModelUnavailable, RecipeError, StopRun
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

RESPOND = "  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}\n"
QUERIES = [{"query": f"q{n}"} for n in range(20)]


def autoif(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoif_blocks", *map(str, arguments)], cwd=cwd, text=True, capture_output=True,
        timeout=120, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten steps, small, as the command line runs them."""
    out = tmp_path_factory.mktemp("first") / "out"
    done = autoif("run", AUTOIF, *SMALL, "--output-dir", out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_ten_steps_leave_their_files_and_add_up(first: Path) -> None:
    run = json.loads((first / "run.json").read_text())
    assert run["state"] == "completed"
    assert len(run["steps"]) == 10
    assert len(rows(first / "sft_data.jsonl")) == run["records"] > 20
    before = 0
    for step in run["steps"]:
        dropped = rows(first / "dropped" / step["file"])
        assert step["in"] == before
        assert step["in"] + step["created"] == step["out"] + len(dropped)
        assert all(row["reason"] and row["step"] == step["name"] for row in dropped)
        assert [row["id"] for row in rows(first / step["file"])] == sorted(
            row["id"] for row in rows(first / step["file"])
        )
        before = step["out"]
    lines = (first / "augment_instructions.txt").read_text().splitlines()
    assert sorted(lines) == sorted(row["instruction"] for row in rows(first / "augment_instructions.jsonl"))
    assert not (first / ".work").exists()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "how",
    [
        ["--batch-size", "3"],
        ["--batch-size", "256"],
        ["--process-num", "1"],
        ["--set", "executor.tasks=3", "--set", "executor.workers=2"],
        ["--set", "executor={tasks: 16, workers: 2}"],
        ["--set", "models.teacher.max_n=1", "--set", "models.judge.max_n=2"],
    ],
    ids="-".join,
)
def test_the_results_do_not_depend_on_how_they_were_made(first: Path, tmp_path: Path, how: list[str]) -> None:
    done = autoif("run", AUTOIF, *SMALL, *how, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(first)


def test_a_second_run_replays_without_asking(first: Path) -> None:
    before = tree(first)
    done = autoif("run", AUTOIF, *SMALL, "--output-dir", first)
    assert done.returncode == 0, done.stderr
    run = json.loads((first / "run.json").read_text())
    assert (run["totals"]["requests"], tree(first)) == (0, before)


@pytest.mark.heavy
def test_another_seed_gives_other_records(first: Path, tmp_path: Path) -> None:
    done = autoif("run", AUTOIF, *SMALL, "--set", "seed=1", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    ids = {row["id"] for row in rows(tmp_path / "sft_data.jsonl")}
    assert ids
    assert not ids & {row["id"] for row in rows(first / "sft_data.jsonl")}


def test_the_terminal_gets_the_funnel_and_the_way_to_a_real_model(tmp_path: Path) -> None:
    done = autoif("run", AUTOIF, *SMALL, "--end-step", "3", "--output-dir", tmp_path)
    assert "simulated teacher" in done.stderr
    assert "--base-url" in done.stderr
    assert "cross_validation" in done.stderr
    assert "sft_data" not in done.stderr.replace("… sft_data", "")
    assert "datatrove" not in done.stderr
    quiet = autoif("run", AUTOIF, *SMALL, "--end-step", "3", "--output-dir", tmp_path, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.heavy
def test_steps_can_be_run_one_after_another(first: Path, tmp_path: Path) -> None:
    for start, end in (("1", "2"), ("cross_validation", "6"), ("7", "sft_data")):
        done = autoif("run", AUTOIF, *SMALL, "--start-step", start, "--end-step", end, "--output-dir", tmp_path)
        assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == tree(first)
    run = json.loads((tmp_path / "run.json").read_text())
    assert [step["number"] for step in run["steps"]] == list(range(1, 11))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start-step", "4"], "step 4 'backtranslator' reads"),
        (["--start-step", "eleven"], "there is no step 'eleven'"),
        (["--end-step", "score_filtre"], "did you mean 'score_filter'?"),
        (["--start-step", "3", "--end-step", "2"], "comes after"),
        (["--seed-dir", "."], "should hold seed_instructions.txt"),
        (["--set", "models.teacher.api_key=${NO_SUCH_KEY}"], "NO_SUCH_KEY: export it"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = autoif("run", AUTOIF, "--output-dir", tmp_path / "out", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_results_are_not_overwritten_by_surprise(bench: Bench) -> None:
    bench.run(RESPOND, QUERIES)
    with pytest.raises(RecipeError, match=r"answered\.n: 2 -> 3"):
        bench.run(RESPOND.replace("n: 2", "n: 3"), QUERIES)
    with pytest.raises(RecipeError, match=r"given\.path: the file in\.jsonl \w+ -> the file in\.jsonl "):
        bench.run(RESPOND, QUERIES[:5])
    with pytest.raises(RecipeError, match="--limit: none -> 5"):
        bench.run(RESPOND, QUERIES, limit=5)
    assert len(rows(bench.out / "answered.jsonl")) == 40
    assert len(bench.run(RESPOND, QUERIES[:5], overwrite=True)) == 10


def test_overwriting_leaves_no_file_of_the_other_recipe(bench: Bench) -> None:
    bench.run(RESPOND + "  - {name: unique, block: dedup}\n", QUERIES)
    bench.run(RESPOND, QUERIES, overwrite=True)
    assert not (bench.out / "unique.jsonl").exists()
    assert not (bench.out / "dropped" / "unique.jsonl").exists()
    assert [step["name"] for step in bench.result["steps"]] == ["given", "answered"]


def test_a_changed_prompt_pays_again_only_for_itself(bench: Bench) -> None:
    """Pitfall 13: a changed input resumed onto stale answers."""
    bench.model.answer = lambda prompt: prompt.upper()
    two = RESPOND + "  - {name: rated, block: judge_score, prompt: '7 {{ query }}'}\n"
    bench.run(two, QUERIES)
    bench.model.prompts.clear()
    bench.model.answer = lambda prompt: prompt.lower()
    left = bench.run(two.replace("Say", "Tell"), QUERIES, overwrite=True)
    assert sorted(bench.model.prompts) == sorted(f"Tell {row['query']}" for row in QUERIES)
    assert {row["response"] for row in left} == {f"tell {row['query']}" for row in QUERIES}


def test_no_resume_asks_for_everything_again(bench: Bench) -> None:
    bench.run(RESPOND, QUERIES)
    bench.model.prompts.clear()
    bench.run(RESPOND, QUERIES, resume=False)
    assert len(bench.model.prompts) == 20


def test_a_limit_reads_only_so_many(bench: Bench) -> None:
    assert len(bench.run(RESPOND, QUERIES, limit=3)) == 6
    assert len(bench.model.prompts) == 3
    assert len(bench.run(RESPOND, QUERIES)) == 40


def test_flaky_servers_lose_nothing(bench: Bench) -> None:
    """Pitfall 14: 15% of 429s cost 62 records."""
    random_ = random.Random(4)
    bench.model.answer = lambda prompt: random_.choice([429, 500, 503, "fine", "fine", "fine"])
    records = [{"query": f"q{n}"} for n in range(200)]
    assert len(bench.run(RESPOND, records)) == 400
    assert bench.step("answered")["dropped"] == {}
    assert bench.step("answered")["retries"] > 20


def test_a_refused_request_drops_its_record_with_the_server_s_words(bench: Bench) -> None:
    bench.model.answer = lambda prompt: 400 if prompt.endswith("q7") else "fine"
    assert len(bench.run(RESPOND, QUERIES)) == 38
    (row,) = bench.dropped("answered")
    assert (row["reason"], row["record"]) == ("request_refused", {"query": "q7"})
    assert "as the test wishes" in row["detail"]


def test_a_rejected_key_stops_the_run_at_once_and_never_shows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    bench.model.answer = lambda prompt: 401
    path = bench.recipe(RESPOND, [{"query": f"q{n}"} for n in range(500)])
    text = path.read_text().replace("model: fake", "model: fake, api_key: '${TEST_KEY}', max_concurrency: 8")
    path.write_text(text)
    with pytest.raises(ModelUnavailable, match="HTTP 401"):
        Recipe.load(path).run()
    assert len(bench.model.prompts) < 100
    run = json.loads((bench.out / "run.json").read_text())
    assert (run["state"], "HTTP 401" in run["failure"]) == ("failed", True)
    files = [path for path in bench.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"sk-very-secret" in path.read_bytes()]


def test_nobody_listening_is_exit_code_3(tmp_path: Path) -> None:
    began = time.monotonic()
    done = autoif(
        "run", AUTOIF, *SMALL, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--output-dir", tmp_path / "o",
        "--api-key", "sk-very-secret", "--set", "models.teacher.connect_patience=1",
    )  # fmt: skip
    assert done.returncode == 3
    assert "is the server running?" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 20
    assert "sk-very-secret" not in done.stderr + "".join(
        path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.heavy
def test_no_record_left_is_a_failure(tmp_path: Path) -> None:
    """Pitfall 1: 0 records, exit 0."""
    done = autoif(
        "run", AUTOIF, *SMALL, "--output-dir", tmp_path, "--set", "steps.score_filter.value='> 10'"
    )  # fmt: skip
    assert done.returncode == 1
    assert "step 'score_filter' dropped them all" in done.stderr
    assert len(rows(tmp_path / "dropped" / "score_filter.jsonl")) > 20


def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *SMALL, "--output-dir", str(out), *more],
        stderr=subprocess.PIPE,
    )


@pytest.mark.heavy
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_continues_to_the_same_bytes(first: Path, tmp_path: Path, how: signal.Signals) -> None:
    run = start(tmp_path, "--set", "flush_interval=0.05")
    wait_for_completions(tmp_path, 100)
    run.send_signal(how)
    _, said = run.communicate(timeout=30)
    if how is not signal.SIGKILL:
        assert run.returncode == 130
        assert b"the same command continues" in said
        assert json.loads((tmp_path / "run.json").read_text())["state"] == "stopped"
    else:
        assert not (tmp_path / "sft_data.jsonl").exists()
    done = autoif("run", AUTOIF, *SMALL, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == tree(first)
    assert json.loads((tmp_path / "run.json").read_text())["totals"]["hits"] >= 50


@pytest.mark.heavy
def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    # The first must last longer than the second takes to start.
    run = start(tmp_path, "--limit", "40", "--set", "steps.augment_instructions.self_instruct.n=12")
    wait_for_completions(tmp_path, 1)
    second = autoif("run", AUTOIF, *SMALL, "--output-dir", tmp_path)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert second.returncode == 1
    assert "another run is using" in second.stderr


@pytest.mark.heavy
def test_a_custom_block_of_twenty_lines_works_in_worker_processes(tmp_path: Path) -> None:
    recipe = ROOT / "pipelines" / "custom_block.yaml"
    outs = []
    for tasks in ("1", "2"):
        outs.append(tmp_path / tasks)
        done = autoif(
            "run", recipe, "--limit", "6", "--output-dir", outs[-1], "--set", f"executor.tasks={tasks}",
            "--set", f"executor.workers={tasks}", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert tree(outs[0]) == tree(outs[1])
    assert rows(outs[0] / "sft_data.jsonl")


def custom(bench: Bench, body: str) -> str:
    (bench.folder / "blocks_of_test.py").write_text(
        f"from autoif_blocks import Block, DropRecord, Filter, Record, Scorer, StopRun\n{body}\n"
    )
    return "  - {name: mine, block: 'blocks_of_test.py:Mine'}\n"


@pytest.fixture(autouse=True)
def forget_custom_blocks() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.modules.pop("blocks_of_test", None)
    sys.path[:] = path


def test_a_crash_of_a_custom_block_costs_its_record_only(bench: Bench) -> None:
    body = (
        "class Mine(Filter):\n    reads = ('query',)\n    def reject(self, record):\n"
        "        return 1 / (record['query'] != 'q3') and None"
    )
    assert len(bench.run(custom(bench, body), QUERIES)) == 19
    (row,) = bench.dropped("mine")
    assert (row["reason"], row["detail"]) == ("error", "ZeroDivisionError: division by zero")


def test_a_block_that_always_crashes_stops_the_run(bench: Bench) -> None:
    body = "class Mine(Scorer):\n    def score(self, record):\n        return record['nothing']"
    with pytest.raises(StopRun, match=r"Mine failed on each of its first 20 records: KeyError: .* no field 'nothing'"):
        bench.run(custom(bench, body), QUERIES)


def test_a_value_that_json_cannot_hold_drops_the_record_not_the_run(bench: Bench) -> None:
    body = (
        "class Mine(Scorer):\n    reads = ('query',)\n    def score(self, record):\n"
        "        return {'q1': {1, 2}, 'q2': float('nan'), 'q3': chr(0xd800)}.get(record['query'], 1)"
    )
    left = bench.run(custom(bench, body), QUERIES)
    assert len(left) == 18
    assert {row["score"] for row in left} == {1, "?"}
    assert [row["reason"] for row in bench.dropped("mine")] == ["not_json"] * 2


def test_a_block_may_stop_the_run(bench: Bench) -> None:
    body = "class Mine(Filter):\n    def reject(self, record):\n        raise StopRun('enough is enough')"
    with pytest.raises(StopRun, match="enough is enough"):
        bench.run(custom(bench, body), QUERIES)


def test_a_block_that_loses_records_is_found_out(bench: Bench) -> None:
    body = "class Mine(Block):\n    def run(self, data, rank=0, world_size=1):\n        yield from list(data)[:-1]"
    with pytest.raises(AutoIFError, match=r"the counts do not add up|took"):
        bench.run(custom(bench, body), QUERIES)


class Doubled(Block):
    """A fan-out of two."""

    def handle(self, record: Record) -> list[Record]:
        return [record.child(n, n=n) for n in range(2)]


def test_blocks_work_outside_a_recipe_too() -> None:
    block = Doubled()
    documents = list(block.run([Record.new("a", query="a").document]))
    assert [document.metadata["n"] for document in documents] == [0, 1]
    assert (block.meter.taken, block.meter.created, block.meter.given) == (1, 1, 2)


def test_the_library_runs_the_ten_steps(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the recipe is found wherever one stands
    job = AutoIF(N=4, process_num=2, batch_size=16, output_dir=tmp_path / "out", cache_dir=tmp_path / "cache")
    result = job.run(start_step=1, end_step=3, limit=12)
    assert [step["number"] for step in result["steps"]] == [1, 2, 3]
    assert (tmp_path / "cache" / "completions.sqlite").is_file()
    found = tree(tmp_path / "out")
    assert found == {name: data for name, data in tree(first).items() if name in found}
    assert "cross_validation.jsonl" in found


def test_the_scripts_options_reach_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOIF_GIVEN_API_KEY", raising=False)
    (tmp_path / "seeds.txt").write_text("Use no commas.\n")
    (tmp_path / "queries.jsonl").write_text('{"query": "What is a comma?"}\n')
    job = AutoIF(
        N=7, model="m", api_key="sk-very-secret", base_url="http://localhost:1/v1", process_num=3, batch_size=9,
        seed_dir=tmp_path,
    )  # fmt: skip
    recipe = job.recipe
    for model in recipe.models.values():
        assert (model.model, model.base_url, model.max_concurrency) == ("m", "http://localhost:1/v1", 9)
        assert model.secret() == "sk-very-secret"
    assert recipe.sandbox.workers == 3
    blocks: dict[str, Any] = {spec.title: spec.options for step in recipe.steps for spec in step.blocks}
    assert blocks["self_instruct"]["n"] == 7
    assert blocks["read_lines"]["path"] == str(tmp_path / "seeds.txt")
    assert blocks["join_queries"]["path"] == str(tmp_path / "queries.jsonl")
    assert "sk-very-secret" not in repr(recipe) + repr(job) + str(recipe.data)


@pytest.mark.heavy
def test_the_main_job_is_done_in_two_minutes_with_two_hundred_records(tmp_path: Path) -> None:
    began = time.monotonic()
    done = autoif("run", AUTOIF, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "sft_data.jsonl")) > 200
    assert time.monotonic() - began < 120


def test_run_options_refuse_nonsense(bench: Bench) -> None:
    recipe = Recipe.load(bench.recipe(RESPOND, QUERIES))
    with pytest.raises(RecipeError, match="--limit must be at least 1"):
        recipe.run(RunOptions(limit=0))


@pytest.mark.heavy
def test_an_edited_block_and_one_of_the_same_name_elsewhere_are_read_afresh(bench: Bench) -> None:
    kept = "class Mine(Filter):\n    def reject(self, record):\n        return None"
    assert len(bench.run(custom(bench, kept), QUERIES)) == 20
    assert bench.run(custom(bench, kept.replace("None", "'edited'")), QUERIES, overwrite=True) == []
    elsewhere = Bench(bench.folder / "elsewhere", bench.model)
    elsewhere.folder.mkdir()
    assert len(elsewhere.run(custom(elsewhere, kept), QUERIES)) == 20
    # Worker processes must import the file that the recipe means, not the one loaded before.
    script = (
        "from autoif_blocks import Recipe\n"
        "if __name__ == '__main__':\n"
        f"    for folder, left in (({str(bench.folder)!r}, 0), ({str(elsewhere.folder)!r}, 20)):\n"
        "        recipe = Recipe.load(folder + '/recipe.yaml', ['executor.tasks=2', 'executor.workers=2'])\n"
        "        assert recipe.run()['records'] == left\n"
    )
    (bench.folder / "script.py").write_text(script)
    done = subprocess.run([sys.executable, bench.folder / "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.heavy
def test_a_faulty_server_changes_no_byte(first: Path, tmp_path: Path) -> None:
    """Errors, busy answers, connections cut in the middle and choices left out are all made good."""
    faults = (
        "--error-500-rate 0.05 --error-429-rate 0.1 --retry-after 0.05 --disconnect-rate 0.03 --fewer-choices-rate 0.1"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "autoif_blocks", "teacher", "--port", "0", *faults.split()],
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            done = autoif("run", AUTOIF, *SMALL, "--base-url", url, "--output-dir", tmp_path)
        finally:
            server.terminate()
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == tree(first)
    assert json.loads((tmp_path / "run.json").read_text())["totals"]["retries"] > 20
