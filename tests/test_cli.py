"""The command line from outside: exit codes, what goes to which stream, and no traceback."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from conftest import Bench, FakeModel

from autoif_blocks import cli
from autoif_blocks.errors import AutoIFError, ModelUnavailable, Problem, RecipeError

ROOT = Path(__file__).parents[1]
RECIPES = [ROOT / "autoif.yaml", *sorted((ROOT / "pipelines").glob("*.yaml"))]
BROKEN = "steps:\n  - {name: a, block: read_line}\n  - {name: a, block: dedup, onn: 1}\n"


def autoif(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "autoif_blocks", *map(str, arguments)], cwd=cwd, text=True, timeout=60,
        capture_output=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_help_of_each_command_names_its_options() -> None:
    for command, parts in {
        (): ["run ", "check ", "blocks ", "teacher ", "--version"],
        ("run",): ["--set PATH=VALUE", "--limit", "--start-step", "--overwrite", "--api-key", "--base-url"],
        ("check",): ["RECIPE...", "--set PATH=VALUE"],
        ("blocks",): ["[NAME]"],
        ("teacher",): ["--port"],
    }.items():
        done = autoif(*command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert [part for part in parts if part not in done.stdout] == []


def loaded_by(*commands: tuple[str, ...]) -> set[str]:
    """The modules that are there after these commands, which one process runs."""
    program = (
        "import contextlib, io, sys\nfrom autoif_blocks.cli import cli\n"
        f"for command in {commands!r}:\n    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        cli(command, standalone_mode=False)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_version_and_help_do_not_wait_for_the_heavy_imports() -> None:
    """What takes long, as counting seconds on a busy machine would not tell: `--help` is there in a tenth of one."""
    with_help = [name for name, command in cli.cli.commands.items() if command.add_help_option]
    found = loaded_by(("--help",), *((name, "--help") for name in with_help))
    heavy = {"datatrove", "aiohttp", "pydantic", "yaml", "rich", "jinja2", "numpy", "asyncio", "huggingface_hub"}
    assert (found & heavy, len(with_help) > 12) == (set(), True)
    assert autoif("--version").stdout.startswith("autoif, version ")


def test_checking_loads_neither_the_runner_nor_the_progress_view() -> None:
    found = loaded_by(("check", "autoif.yaml"))
    heavy = {
        "rich",
        "numpy",
        "py3langid",
        "huggingface_hub",
        "ray",
        "uvloop",
        "autoif_blocks.run",
        "autoif_blocks.report",
    }
    assert (found & heavy, "autoif_blocks.recipe" in found) == (set(), True)


@pytest.mark.parametrize("name", cli.cli.commands)
def test_the_help_of_each_command_shows_an_example_that_it_takes(name: str, tmp_path: Path) -> None:
    command = cli.cli.commands[name]
    if command.add_help_option:
        shown = command.get_help(click.Context(command, info_name=f"autoif {name}"))
    else:
        shown = autoif(name, "--help").stdout
    examples = [line.strip() for line in shown.splitlines() if re.match(rf" *autoif {name}\b", line)]
    assert examples
    (tmp_path / "output").mkdir()
    with contextlib.chdir(tmp_path):
        for example in examples:
            command.make_context(name, shlex.split(example.replace("cache autoif.yaml", "cache output"))[2:])


def test_shells_can_complete() -> None:
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [Path(sys.executable).parent / "autoif"], env={**os.environ, "_AUTOIF_COMPLETE": f"{shell}_source"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "_AUTOIF_COMPLETE" in done.stdout
    asked = {**os.environ, "_AUTOIF_COMPLETE": "bash_complete", "COMP_WORDS": "autoif exp", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).parent / "autoif"], env=asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["plain,export"]


def test_every_shipped_recipe_passes_the_check_wherever_it_is_called_from(tmp_path: Path) -> None:
    began = time.monotonic()
    done = autoif("check", *RECIPES, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(": ")[:2] for line in done.stdout.splitlines()] == [[str(path), "all right"] for path in RECIPES]
    assert f"{ROOT / 'autoif.yaml'}: all right: 10 steps, 15 blocks, 2 models" in done.stdout
    assert time.monotonic() - began < 30
    assert not list(tmp_path.iterdir())


def test_a_broken_recipe_is_exit_code_2_with_all_its_problems(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    done = autoif("check", "broken.yaml", "gone.yaml", ROOT / "autoif.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.endswith("autoif.yaml: all right: 10 steps, 15 blocks, 2 models\n")
    assert done.stderr.splitlines() == [
        "broken.yaml:2: step 'a': there is no block 'read_line'; did you mean 'read_lines'?",
        "broken.yaml:3: step 'a': dedup has no option 'onn'; did you mean 'on'?",
        "broken.yaml:3: step 'a': the step on line 2 has this name too: rename one",
        "gone.yaml: cannot read the recipe: No such file or directory",
    ]


def test_set_is_checked_and_environment_variables_are_read(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    (tmp_path / "r.yaml").write_text("seed: ${T_SEED}\nsteps: [{name: a, block: read_lines, path: in.txt}]\n")
    assert autoif("check", "r.yaml", cwd=tmp_path, T_SEED="3").returncode == 0
    for override, seed, said in (
        (
            "steps.a.pth=x",
            "3",
            "r.yaml:2: step 'a': read_lines has no option 'pth'; did you mean 'path'? (set by --set",
        ),
        ("seed=4", "x", ""),
        ("name=n", "x", "r.yaml:1: seed must be a whole number, got 'x'\n"),
    ):
        done = autoif("check", "r.yaml", "--set", override, cwd=tmp_path, T_SEED=seed)
        assert done.returncode == (2 if said else 0)
        assert done.stderr.startswith(said)


WRONG = [
    (("nope",), "No such command 'nope'"),
    (("check",), "Missing argument 'RECIPE...'"),
    (("check", "--st", "a=b", "autoif.yaml"), "--set"),
    (("check", "pipelines"), "pipelines: this is a directory; name the recipe's .yaml file"),
    (("check", "README.md"), "README.md:"),
    (("blocks", "read_line"), "error: there is no block 'read_line'; did you mean 'read_lines'?"),
    (("blocks", "xyz"), "error: there is no block 'xyz'; known blocks: read_lines, read_jsonl, join_queries"),
    (("blocks", "pipelines/my_blocks.py:NotAnEco"), "error: my_blocks has no 'NotAnEco'; did you mean 'NotAnEcho'?"),
    (("blocks", "os.path"), "error: os.path is not a block"),
    (("run", "gone.yaml"), "gone.yaml: cannot read the recipe"),
    (("run", "autoif.yaml", "--limit", "0"), "--limit"),
    (
        ("run", "autoif.yaml", "--set", "steps.x.n=1"),
        "autoif.yaml: --set steps.x.n: there is no 'x'; there are augment",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_wrong_usage_is_exit_code_2_and_says_what_to_do(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["autoif", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RecipeError("no step"), 2, "error: no step\n"),
        (RecipeError([Problem("r.yaml", 3, "a", "wrong")]), 2, "r.yaml:3: step 'a': wrong\n"),
        (AutoIFError("no record is left"), 1, "error: no record is left\n"),
        (ModelUnavailable("nobody listens"), 3, "error: nobody listens\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_failure_has_its_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (caught.value.code, capsys.readouterr().err) == (code, said)


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    command = f"{sys.executable} -m autoif_blocks blocks | true"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("ok", 0, "ok      teacher: http"),
        (401, 3, "check the key"),
        (404, 3, "is 'fake' the name that the server uses"),
        (400, 3, "HTTP 400"),
        (None, 3, "cannot connect"),
    ],
)
def test_ping(answer: str | int | None, code: int, said: str, bench: Bench, model: FakeModel) -> None:
    if answer is None:
        model.url = "http://127.0.0.1:9/v1"
    else:
        model.answer = lambda prompt: answer
    recipe = bench.recipe("  - {name: r, block: respond, prompt: 'say {{ q }}'}\n", [{"q": "x"}])
    done = autoif("check", recipe, "--ping")
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    assert "Traceback" not in done.stderr
    assert len(model.bodies) == (1 if answer is not None else 0)
    assert all(body["max_tokens"] == 1 for body in model.bodies)


def test_ping_needs_no_server_where_the_teacher_is_simulated() -> None:
    done = autoif("check", ROOT / "autoif.yaml", "--ping")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("built in") == 2
