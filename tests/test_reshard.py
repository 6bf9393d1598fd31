"""`reshard_after`: what few tasks have made of few records goes to all tasks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import AUTOIF, Bench, FakeModel, tree

from autoif_blocks.errors import RecipeError
from autoif_blocks.plan import show, stages
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

# Two records become sixty each; the one that is dropped shows that the counts still add up.
STEPS = """
  - {name: many, block: respond, n: 60, prompt: 'say {{ number }}'}
  - {name: fewer, block: keep_where, field: number, value: '< 3'}
  - {name: again, block: respond, n: 1, field: second, prompt: 'again {{ response }}'}
"""
FEW = [{"number": i} for i in range(1, 4)]
TASKS = 8


class Watcher:
    """Notes, at the end of a run, how many records each task of each stage has taken into a step."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.taken: dict[str, list[int]] = {}

    def started(self, *_: Any) -> None: ...

    def note(self, _: str) -> None: ...

    @contextlib.contextmanager
    def watching(self, state: Any) -> Iterator[None]:
        yield
        for path in sorted(state._work.glob("stage-*/*.status.json")):
            meters = json.loads(path.read_text())["meters"]
            taken = [meter["in"] for step, _, _, meter in meters if step == self.step]
            if taken:
                self.taken.setdefault(path.parent.name, []).append(max(taken))


@pytest.mark.heavy
def test_many_records_of_few_are_spread_and_the_results_are_the_same(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: [f"{prompt} {n}" for n in range(60)]
    bench.run(STEPS, FEW)
    alone = tree(bench.out)
    spread: dict[str, list[int]] = {}
    for more in ("", ", reshard_after: [many]", ", reshard_after: [many, fewer]"):
        watcher = Watcher("again")
        executor = f"executor: {{tasks: {TASKS}, workers: 2{more}}}"
        bench.run(STEPS, FEW, executor, resume=False, listener=watcher)
        assert tree(bench.out) == alone
        [spread[more]] = watcher.taken.values()
    assert all(sum(taken) == 120 for taken in spread.values())
    whole = spread.pop("")
    assert sorted(whole)[: TASKS - 2] == [0] * (TASKS - 2)  # the records of two, with two tasks at the most
    for taken in spread.values():
        assert len(taken) == TASKS
        assert min(taken) >= 5  # a fair share is 15
        assert max(taken) <= 30


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ("tasks: 1, reshard_after: [sharegpt_query]", [(1, 10)]),
        ("tasks: 4, reshard_after: [sharegpt_query]", [(1, 1), (4, 6), (4, 4)]),
    ],
)
def test_the_plan_shows_it(options: str, cut: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe.load(AUTOIF, [f"executor={{{options}}}"])
    found = stages(recipe)
    assert [(s.tasks, len({block.step for block in s.pipeline if block.step})) for s in found] == cut
    show(recipe, None, False)
    assert capsys.readouterr().out.count("dealt out anew") == (len(cut) == 3)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("[mny]", ":2: executor: reshard_after names a step 'mny', which is not there; did you mean 'many'?"),
        ("[again]", ":2: executor: reshard_after names the last step, 'again': nothing comes after it"),
        ("many", "reshard_after"),
    ],
)
def test_a_step_that_cannot_be_meant_is_told_by_its_line(bench: Bench, names: str, said: str) -> None:
    path = bench.recipe(STEPS, FEW, f"executor: {{tasks: 2, reshard_after: {names}}}")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert said in str(caught.value)


def test_a_run_of_some_steps_is_cut_only_where_they_are(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: [f"{prompt} {n}" for n in range(60)]
    path = bench.recipe(STEPS, FEW, "executor: {tasks: 3, reshard_after: [many, fewer]}")
    bench.run(STEPS, FEW)
    alone = tree(bench.out)
    recipe = Recipe.load(path)
    for start, end in ((1, 2), (3, 3), (4, 4)):
        recipe.run(RunOptions(start_step=start, end_step=end))
        assert tree(bench.out) == alone
