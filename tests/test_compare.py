"""`autoif diff`: what it says of two recipes, against what runs of both then ask."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import AUTOIF, ROOT, Bench, FakeModel

from autoif_blocks.compare import ALL, MORE, NEW, NOTHING, compare
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

NUMBERS = [{"number": i} for i in range(12)]
STEPS = """
  - {name: first, block: respond, field: a, n: 1, prompt: 'first {{ number }}'}
  - {name: low, block: keep_where, field: number, value: '< 6'}
  - {name: second, block: respond, field: b, n: 2, prompt: 'second {{ a }}', model: other}
  - {name: rated, block: judge_score, prompt: 'rate {{ b }}', model: other}
"""


def recipe_of(bench: Bench, steps: str = STEPS, *overrides: str) -> Recipe:
    path = bench.recipe(steps, NUMBERS)
    path.write_text(
        path.read_text().replace("models:\n", f"models:\n  other: {{base_url: {bench.model.url}, model: o}}\n")
    )
    return Recipe.load(path, overrides)


# An edit, and what the second run asks of the three model steps.
EDITS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["", "", ""]),
    "a prompt at the top": (["steps.first.prompt=1st {{ number }}"], [ALL, NEW, NEW]),
    "a prompt below": (["steps.rated.prompt=judge {{ b }}"], ["", "", ALL]),
    "a temperature": (["steps.second.temperature=0.5"], ["", ALL, NEW]),
    "more samples": (["steps.second.n=3"], ["", MORE, NEW]),
    "fewer samples": (["steps.second.n=1"], ["", "", NEW]),
    "a filter": (["steps.low.value=< 9"], ["", NEW, NEW]),
    "a model": (["models.other.model=p"], ["", ALL, ALL]),
    "another pace": (["models.other.max_concurrency=3", "models.other.timeout=9"], ["", "", ""]),
    "a model's sampling": (["models.teacher.sampling={top_k: 3}"], [ALL, NEW, NEW]),
    "the seed": (["seed=7"], [ALL, ALL, ALL]),
    "the scale": (["steps.rated.high=100"], ["", "", NEW]),
    "a default written out": (["steps.rated.high=10", "steps.first.reask=0"], ["", "", ""]),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_said_to_be_asked_is_asked(name: str, bench: Bench, model: FakeModel) -> None:
    """Both are run, with one cache: who is said to ask nothing asks nothing, who asks all again asks as much."""
    overrides, expected = EDITS[name]
    model.answer = lambda prompt: "5" if prompt.startswith(("rate", "judge")) else f"answer to {prompt}"
    before, after = recipe_of(bench), recipe_of(bench, STEPS, *overrides)
    found = {change.step: change.asks for change in compare(before, after)}
    assert [found[step] for step in ("first", "second", "rated")] == expected
    first = {step["name"]: step["requests"] for step in before.run()["steps"]}
    second = {step["name"]: step["requests"] for step in after.run(RunOptions(overwrite=True))["steps"]}
    for step, asks in found.items():
        if asks == NOTHING:
            assert second[step] == 0, step
        elif asks == ALL:
            assert second[step] >= first[step] > 0, step
        elif asks == MORE:
            assert second[step] > 0, step


def test_steps_that_come_and_go_and_move(bench: Bench) -> None:
    lines = STEPS.strip("\n").splitlines()
    first, low, second, rated = lines
    new = "  - {name: new, block: respond, field: c, prompt: 'third {{ b }}'}"
    before = recipe_of(bench)
    gone = compare(before, recipe_of(bench, "\n".join([first, second, rated])))
    assert [(c.step, c.what, c.asks) for c in gone] == [
        ("given", "same", ""), ("first", "same", ""), ("second", "same", NEW), ("rated", "same", NEW),
        ("low", "removed", ""),
    ]  # fmt: skip
    added = compare(before, recipe_of(bench, "\n".join([*lines, new])))
    assert [(c.step, c.what, c.asks) for c in added][-2:] == [("rated", "same", ""), ("new", "new", ALL)]
    moved = {c.step: c for c in compare(before, recipe_of(bench, "\n".join([first, second, low, rated])))}
    assert {moved["low"].what, moved["second"].what} == {"same", "moved"}
    assert moved["second"].asks == NEW


def diff(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["autoif", "diff", *map(str, arguments)], capture_output=True, text=True)


def test_what_is_printed(tmp_path: Path) -> None:
    same = diff(AUTOIF, AUTOIF)
    assert (same.returncode, same.stdout.splitlines()[-1]) == (
        0, "a run of the second asks nothing that the first has not asked",
    )  # fmt: skip
    text = AUTOIF.read_text().replace("output_dir: output", f"output_dir: {tmp_path / 'out'}")
    text = text.replace("sample_data/", f"{ROOT}/sample_data/")
    (tmp_path / "one.yaml").write_text(text)
    (tmp_path / "two.yaml").write_text(
        text.replace("You are an expert at writing instructions", "You write instructions")
    )
    Recipe.load(tmp_path / "one.yaml").run(RunOptions(limit=2))
    done = diff(tmp_path / "one.yaml", tmp_path / "two.yaml", "--set", "steps.score_filter.value=> 8")
    assert done.returncode == 0
    assert "changed  augment_instructions   asks all again: 12 requests, " in done.stdout
    assert "  -You are an expert at writing instructions about" in done.stdout
    assert "  +You write instructions about" in done.stdout
    assert "value: > 7 -> > 8" in done.stdout
    assert diff(AUTOIF, tmp_path / "gone.yaml").returncode == 2
