"""What `run.json` says a directory's results have cost, over all commands that made them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from conftest import Bench, FakeModel, wait_for_completions

from autoif_blocks.errors import BudgetSpent, ModelUnavailable
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

TWO = """
  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}
  - {name: rated, block: judge_score, prompt: '7 {{ query }}'}
"""
QUERIES = [{"query": f"q{n}"} for n in range(20)]


@pytest.fixture(autouse=True)
def answers(model: FakeModel) -> None:
    model.answer = lambda prompt: "7" if prompt.startswith("7") else "x"


def run_json(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bench.out / "run.json").read_text())
    return found


def check(bench: Bench, commands: int, requests: int) -> None:
    """The sums over all commands, of the whole and of its steps."""
    run = run_json(bench)
    whole = run["all_commands"]
    assert (whole["commands"], whole["requests"]) == (commands, requests)
    for name in ("requests", "completions", "hits", "prompt_tokens", "completion_tokens"):
        assert sum(step["all_commands"][name] for step in run["steps"]) == whole[name], name
    assert whole["prompt_tokens"] == 3 * requests
    assert whole["seconds"] >= run["seconds"]


def test_a_run_that_was_stopped_and_continued(bench: Bench, model: FakeModel) -> None:
    for _ in range(2):
        with pytest.raises(BudgetSpent):
            bench.run(TWO, QUERIES, "budget: {requests: 12}\n")
    first = run_json(bench)
    bench.run(TWO, QUERIES)
    check(bench, 3, len(model.prompts))
    run = run_json(bench)
    assert run["totals"]["requests"] == len(model.prompts) - 24
    assert run["all_commands"]["since"] == first["all_commands"]["since"]
    assert run["all_commands"]["seconds"] > first["all_commands"]["seconds"]
    assert run["all_commands"]["completions"] == 60
    bench.run(TWO, QUERIES)  # replays
    check(bench, 4, len(model.prompts))
    assert run_json(bench)["totals"]["requests"] == 0


def test_steps_that_were_run_one_after_another(bench: Bench, model: FakeModel) -> None:
    Recipe.load(bench.recipe(TWO, QUERIES)).run(RunOptions(end_step="answered"))
    bench.run(TWO, QUERIES, start_step="rated")
    check(bench, 2, len(model.prompts))
    by_name = {step["name"]: step["all_commands"]["requests"] for step in run_json(bench)["steps"]}
    assert by_name == {"given": 0, "answered": 20, "rated": 20}


def test_a_run_that_failed(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: 401
    with pytest.raises(ModelUnavailable):
        bench.run(TWO, QUERIES)
    failed = run_json(bench)["all_commands"]["requests"]
    assert failed > 0
    model.answer = lambda prompt: "7"
    bench.run(TWO, QUERIES)
    assert run_json(bench)["all_commands"]["requests"] == failed + 40
    assert run_json(bench)["all_commands"]["commands"] == 2


def told(bench: Bench) -> str:
    """What a run that is under way has written of those before."""
    path = bench.out / ".work" / "command.json"
    return path.read_text() if path.exists() else ""


def test_runs_that_were_killed(bench: Bench, model: FakeModel) -> None:
    """Twice: what the first has spent must outlive the second."""
    asked: list[str] = []
    enough = 8

    def answer(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) > enough:
            time.sleep(0.3)
        return "7"

    model.answer = answer
    more = "flush_interval: 0.05\n"
    path = bench.recipe(TWO, QUERIES, more)
    path.write_text(path.read_text().replace("model: fake", "model: fake, max_concurrency: 1"))
    for before in range(2):
        command = [sys.executable, "-m", "autoif_blocks", "run", str(path), "--quiet"]
        with subprocess.Popen(command) as run:
            while f'"commands": {before}' not in told(bench):
                time.sleep(0.02)
            wait_for_completions(bench.out, enough)
            run.kill()
        asked.clear()
    enough = 100
    bench.result = Recipe.load(path).run()
    whole = run_json(bench)["all_commands"]
    assert whole["commands"] == 3
    assert whole["completions"] >= 60
    assert len(model.prompts) - 6 <= whole["requests"] <= len(model.prompts)
    assert not (bench.out / ".work").exists()


@pytest.mark.parametrize("how", ["overwrite", "no-resume"])
def test_results_that_begin_anew(bench: Bench, model: FakeModel, how: str) -> None:
    bench.run(TWO, QUERIES)
    model.prompts.clear()
    if how == "overwrite":
        bench.run(TWO.replace("Say", "Tell"), QUERIES, overwrite=True)
    else:
        bench.run(TWO, QUERIES, resume=False)
    check(bench, 1, len(model.prompts))


def test_steps_that_begin_anew(bench: Bench, model: FakeModel) -> None:
    """The money is spent all the same; of the steps before, their own counts stay."""
    bench.run(TWO, QUERIES)
    bench.run(TWO.replace("'7 ", "'7, "), QUERIES, start_step="rated", overwrite=True)
    run = run_json(bench)
    assert (run["all_commands"]["commands"], run["all_commands"]["requests"]) == (2, 60)
    by_name = {step["name"]: step["all_commands"]["requests"] for step in run["steps"]}
    assert by_name == {"given": 0, "answered": 20, "rated": 20}
