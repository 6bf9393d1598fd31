"""`autoif plan`: stages and tasks, and what a run will take, against what runs then do take."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from conftest import AUTOIF, Bench, FakeModel

from autoif_blocks.errors import AutoIFError
from autoif_blocks.plan import Estimate, estimate, stages
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

NUMBERS = [{"number": i} for i in range(40)]
STEPS = """
  - {name: r, block: respond, n: 2, prompt: 'say {{ number }}'}
  - {name: half, block: keep_where, field: number, value: '< 20'}
  - {name: again, block: respond, n: 1, field: second, prompt: 'again {{ number }} {{ response }}'}
"""


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["autoif", "plan", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(("tasks", "cut"), [(1, [(1, 10)]), (4, [(1, 1), (4, 10)])])
def test_stages(tasks: int, cut: list[tuple[int, int]]) -> None:
    """As (tasks, number of steps): `self_instruct` must see all seeds, the rest of the recipe is spread."""
    found = stages(Recipe.load(AUTOIF, [f"executor.tasks={tasks}"]))
    assert [(s.tasks, len({block.step for block in s.pipeline if block.step})) for s in found] == cut


def reckoned(bench: Bench, sample: int, options: str, steps: str = STEPS) -> tuple[Recipe, Estimate]:
    path = bench.recipe(steps, NUMBERS)
    path.write_text(path.read_text().replace("max_retry_wait: 0.05}", f"max_retry_wait: 0.05, {options}}}"))
    recipe = Recipe.load(path)
    return recipe, estimate(recipe, sample)


def test_a_sample_tells_what_the_run_takes(bench: Bench, model: FakeModel) -> None:
    """Of 40 records 10 are tried. Their ids are hashes, so that about half of them are below 20, as of all."""
    model.answer = lambda prompt: f"about {prompt}"
    recipe, found = reckoned(bench, 10, "price: {input: 1000, output: 10000}")
    assert (found.sample, found.of) == (10, 40)
    asked = len(model.prompts)
    assert not (bench.out / "r.jsonl").exists()
    first, r, half, again = found.steps
    assert (first.requests, first.out) == (0, 40)
    assert (r.requests, r.out, r.prompt_tokens) == (40, 80, 120)
    assert r.cost == pytest.approx(40 * (3 * 1000 + 4 * 10000) / 1e6)  # the usage told is of one of two choices
    assert half.requests == 0
    assert again.out == half.out == found.records
    assert again.requests == again.out / 2  # both of a pair of equal responses ask the same
    assert found.totals["requests"] == pytest.approx(asked * 4)
    result = recipe.run(RunOptions())
    assert len(model.prompts) == len(set(model.prompts))  # what the sample has paid for is not paid for again
    assert result["steps"][1]["hits"] == 20


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("rpm: 10", 6), pytest.param("tpm: 20", 15, marks=pytest.mark.heavy), ("max_concurrency: 1", 0.02)],
)
def test_what_takes_longest(
    bench: Bench, model: FakeModel, limit: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seconds` are a request's, of which there is at least one for each record."""
    monkeypatch.setattr("autoif_blocks.limits.PERIOD", 0.1)

    def answer(prompt: str) -> str:
        time.sleep(0.02)
        return "ok"

    model.answer = answer
    _, found = reckoned(bench, 20, limit)
    assert limit.replace(":", "") in found.limit
    assert found.seconds == pytest.approx(found.totals["requests"] * seconds, rel=0.7)
    assert found.totals["requests"] >= 40


def test_a_first_step_that_asks_for_each_row_is_not_asked_for_all(bench: Bench, model: FakeModel) -> None:
    path = bench.recipe("", NUMBERS)
    both = "- name: given\n    blocks:\n      - {block: read_jsonl, path: in.jsonl, fields: [number]}\n"
    both += "      - {block: respond, n: 1, prompt: 'say {{ number }}'}\n"
    path.write_text(path.read_text().split("- {name: given")[0] + both)
    found = estimate(Recipe.load(path), 8)
    assert len(model.prompts) == 8
    assert (found.sample, found.of, found.totals["requests"]) == (8, 40, 40)


def test_a_step_that_nothing_leaves_is_told(bench: Bench) -> None:
    path = bench.recipe("", [{"number": 1}])
    only = "- name: given\n    blocks:\n      - {block: read_jsonl, path: in.jsonl, fields: [number]}\n"
    only += "      - {block: keep_where, field: number, value: '> 1'}\n"
    path.write_text(path.read_text().split("- {name: given")[0] + only)
    with pytest.raises(AutoIFError, match="nothing of the sample has left step 1 'given'"):
        estimate(Recipe.load(path), 5)


@pytest.mark.heavy
def test_the_ten_steps(tmp_path: Path) -> None:
    """The simulated teacher's answers do not change, so the run's counts are known: 891 records, 5,107 requests."""
    done = plan(AUTOIF, "--sample", "12", "--json", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = found["expected"]
    assert [step["step"] for step in expected["steps"]] == found["stages"][0]["steps"]
    assert expected["of"] == 122
    assert 700 < expected["records"] < 1100
    assert 4500 < expected["totals"]["requests"] < 5700
    grown = json.loads(
        plan(AUTOIF, "--sample", "12", "--json", "--output-dir", tmp_path, "--set", "target=5000").stdout
    )
    assert grown["expected"]["records"] == pytest.approx(5000)
    assert grown["expected"]["totals"]["requests"] > 4 * expected["totals"]["requests"]


def test_what_is_printed(tmp_path: Path) -> None:
    done = plan(AUTOIF, "--set", "executor.tasks=4", "--set", "executor.workers=2", "--output-dir", tmp_path)
    assert done.returncode == 0
    assert "10 steps in 2 stages, executor local, 2 tasks at once" in done.stdout
    assert "stage 1  1 task" in done.stdout
    assert "SelfInstruct must see all records" in done.stdout
    assert plan(tmp_path / "none.yaml").returncode == 2
