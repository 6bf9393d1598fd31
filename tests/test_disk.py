"""Disks that are full, and places that cannot be written: one sentence, and the same command continues."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bench, FakeModel, tree
from running import AS_ANYBODY, small_disk

from autoif_blocks.errors import ModelUnavailable
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

TWO = """
  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}
  - {name: rated, block: judge_score, prompt: '7 {{ query }}'}
"""
QUERIES = [{"query": f"q{n} " + "x" * 500} for n in range(150)]
TASKS = "executor: {tasks: 2, workers: 2}\n"


@pytest.fixture(autouse=True)
def answers(model: FakeModel) -> None:
    model.answer = lambda prompt: "7" if prompt.startswith("7") else "a" * 200


def run(recipe: Path, *more: str) -> tuple[int, str]:
    command = [*AS_ANYBODY, sys.executable, "-m", "autoif_blocks", "run", str(recipe), "--quiet", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def check_sentence(said: str, *words: str) -> None:
    assert said.startswith("error: "), said
    assert len(said.splitlines()) == 1, said
    assert not [word for word in ("Traceback", "This is a bug", "not foreseen") if word in said], said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    ("place", "before"),
    [
        (".work", True),
        *(
            pytest.param(*rest, marks=pytest.mark.heavy)
            for rest in [(".", False), (".", True), ("cache", True), ("logs", True), ("dropped", True)]
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_named(place: str, before: bool, bench: Bench) -> None:
    """In a directory that a killed run has left, or in a new one."""
    recipe = bench.recipe(TWO, QUERIES[:5])
    bench.out.mkdir()
    if before:
        assert run(recipe)[0] == 0
        (bench.out / ".work" / "stage-0").mkdir(parents=True)
        (bench.out / "cache" / "completions.sqlite").unlink()
    spoilt = [bench.out / place, *(bench.out / place).rglob("*")]
    modes = {path: path.stat().st_mode for path in spoilt}
    try:
        for path in modes:
            path.chmod(modes[path] & ~0o222)
        code, said = run(recipe)
    finally:
        for path in modes:
            path.chmod(modes[path])
    assert code == 1
    check_sentence(said, str(bench.out), *([] if place == "cache" else ["ermission denied"]))
    assert run(recipe) == (0, "")


@pytest.mark.heavy
@pytest.mark.parametrize(("size", "tasks"), [("192k", ""), ("448k", TASKS), ("704k", "")])
def test_a_full_disk_is_a_sentence_and_the_same_command_continues(size: str, tasks: str, bench: Bench) -> None:
    with small_disk(bench.folder, size) as disk:
        bench.out = disk / "out"
        recipe = bench.recipe(TWO, QUERIES, tasks)
        code, said = run(recipe)
        assert code == 1
        check_sentence(said, str(bench.out), "make room")
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert run(recipe) == (0, "")
        found = tree(bench.out)
    bench.out = bench.folder / "whole"
    assert run(bench.recipe(TWO, QUERIES, tasks)) == (0, "")
    assert found == tree(bench.out)


def test_an_input_that_has_changed_since_a_run_that_failed_is_said(
    bench: Bench, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, model.answer = model.answer, lambda prompt: 401
    with pytest.raises(ModelUnavailable):
        bench.run(TWO, QUERIES[:5])
    model.answer = answer
    recipe = bench.recipe(TWO, QUERIES[:6])
    said = autoif_run(recipe, capsys)
    assert "changed since the last command here: steps.given.path: the file in.jsonl " in said
    assert "What still fits is replayed" in said
    assert "changed since" not in autoif_run(recipe, capsys)
    assert json.loads((bench.out / "run.json").read_text())["records"] == 12


def autoif_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> str:
    from autoif_blocks.progress import ConsoleListener

    capsys.readouterr()
    Recipe.load(recipe).run(RunOptions(listener=ConsoleListener()))
    return capsys.readouterr().err
