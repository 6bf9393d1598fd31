"""What a recipe without mistakes becomes, and the checks that look at several of its parts at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from test_recipe import MODEL, READ, check, problems, write

from autoif_blocks import Recipe, RecipeError
from autoif_blocks.storage import local_folder

TWO = f"{READ}  - {{name: b, block: dedup}}\n"  # lines 1 to 3
GROWS = f"{READ}  - {{name: b, block: self_instruct, n: 1, prompt: 'Like {{{{ demonstrations }}}}'}}\n{MODEL}"
SLURM = 'executor: {type: slurm, partition: p, time: "1"'
PRICE = "price: {input: 1, output: 2}"

# What a recipe says, and what it is then.
FOUND: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("", {
        "name": "recipe", "seed": 0, "text": "", "flush_interval": 5.0, "send_interval": 60.0, "target": None,
        "shards": None, "work_dir": None, "output_dir": Path("output"), "cache_dir": Path("output/cache"),
        "output_url": "", "cache_url": "", "place": "output", "cache_per_task": False, "models": {},
    }),
    "everything": (
        "name: n\nseed: 7\ntext: instruction\nflush_interval: 0.5\nsend_interval: 0.25\nshards: 2\n"
        "output_dir: here\ncache_dir: there\nwork_dir: elsewhere\n", {
        "name": "n", "seed": 7, "text": "instruction", "flush_interval": 0.5, "send_interval": 0.25, "shards": 2,
        "output_dir": Path("here"), "cache_dir": Path("there"), "work_dir": "elsewhere", "place": "here",
    }),
    "the least": ("shards: 1\nflush_interval: 1\n", {"shards": 1, "flush_interval": 1.0}),
    "a cache of ray's": ("executor: {type: ray}\n", {"cache_per_task": True}),
    "a cache of slurm's": (f"{SLURM}}}\n", {"cache_per_task": True}),
    "a cache for all, on ray": ("executor: {type: ray}\ncache: {per_task: false}\n", {"cache_per_task": False}),
    "a cache for each, here": ("cache: {per_task: true}\n", {"cache_per_task": True}),
    "dealt out anew": ("executor: {tasks: 2, reshard_after: [a]}\n", {}),
    "cost where a model has a price": (
        f"budget: {{cost: 3}}\nmodels: {{t: {{base_url: simulated, model: m, {PRICE}}}}}\n", {}),
    "a budget without cost": ("budget: {requests: 3}\n", {}),
}  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), FOUND.values(), ids=FOUND)
def test_a_recipe_is_what_it_says(more: str, expected: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, TWO + more))
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert [(step.name, step.number, len(step.blocks)) for step in recipe.steps] == [("a", 1, 1), ("b", 2, 1)]
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("target", [1, 2, 500])
def test_a_target_is_a_number_of_records(target: int, tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, f"{GROWS}target: {target}\n"))
    assert recipe.target == target
    trial = recipe.apart(tmp_path / "out", tmp_path / "cache")
    assert (trial.target, trial.output_dir, trial.steps) == (None, tmp_path / "out", recipe.steps)


@pytest.mark.parametrize("executor", ["", "executor: {type: ray}\n", "executor: {tasks: 2}\n"])
def test_a_remote_place_has_folders_of_this_machine(executor: str, tmp_path: Path) -> None:
    out, cache, work = f"{tmp_path.as_uri()}/out/", f"{tmp_path.as_uri()}/cache/", tmp_path / "work"
    recipe = Recipe.load(write(tmp_path, f"{READ}output_dir: {out}\ncache_dir: {cache}\nwork_dir: {work}\n{executor}"))
    assert (recipe.place, recipe.output_url, recipe.cache_url) == (out.rstrip("/"), out.rstrip("/"), cache.rstrip("/"))
    assert (recipe.output_dir, recipe.cache_dir) == (local_folder(out, work), local_folder(cache, work))


def test_steps_have_numbers_and_names(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, TWO))
    assert [recipe.step_number(step) for step in ("a", 1, "1", "b", 2, "2")] == [1, 1, 1, 2, 2, 2]
    with pytest.raises(RecipeError, match=r"there is no step 'c' \(steps are 1-2 or names\); known steps: a, b"):
        recipe.step_number("c")
    with pytest.raises(RecipeError, match="there is no step '0'"):
        recipe.step_number(0)


REMOTE = "output_dir: file:///there\n"
# What is wrong behind three lines of steps, and what is said about it.
WRONG: dict[str, tuple[str, list[str]]] = {
    "fewer than no shards": ("shards: -1", ["4: shards must be a number of files, at least 1, got -1"]),
    "true shards": ("shards: true", ["4: shards must be a number of files, at least 1, got true"]),
    "shards of text": ("shards: two", ["4: shards must be a number of files, at least 1, got 'two'"]),
    "less than no target": ("target: -1", ["4: target must be a number of records, at least 1, got -1"]),
    "no target": ("target: 0", ["4: target must be a number of records, at least 1, got 0"]),
    "a true target": ("target: true", ["4: target must be a number of records, at least 1, got true"]),
    "a target out of reach": ("target: 1", ["4: target: no block of this recipe can bring more records: self_ins"]),
    "time that runs back": ("flush_interval: -1", ["4: flush_interval must be above 0, got -1"]),
    "time that stands still": ("send_interval: 0", ["4: send_interval must be above 0, got 0"]),
    "seed of text": ("seed: x", ["4: seed must be a whole number, got 'x'"]),
    "seed of a fraction": ("seed: 1.5", ["4: seed must be a whole number, got 1.5"]),
    "interval of text": ("flush_interval: x", ["4: flush_interval must be a number of seconds, got 'x'"]),
    "cost without a model": ("budget: {cost: 3}",
        ["4: budget: cost can only be counted where a model has one: give a model a price"]),
    "cost without a price": ("budget: {cost: 3}\nmodels: {t: {base_url: simulated, model: m}}",
        ["4: budget: cost can only be counted"]),
    "cost of a broken model": ("budget: {cost: 3}\nmodels: {t: 5}",
        ["4: budget: cost can only be counted", "5: model 't' must be a mapping"]),
    "a server that is not there": ("models: {t: {model: m, serve: 'gone.py:X'}}",
        ["4: model 't': there is no file gone.py"]),
    "dealt out at the end": ("executor: {tasks: 2, reshard_after: [b]}",
        ["4: executor: reshard_after names the last step, 'b': nothing comes after it"]),
    "dealt out at the end of three": ("  - {name: c, block: dedup}\nexecutor: {tasks: 2, reshard_after: [a, c]}",
        ["5: executor: reshard_after names the last step, 'c': nothing comes after it"]),
    "dealt out nowhere": ("executor: {tasks: 2, reshard_after: [c]}",
        ["4: executor: reshard_after names a step 'c', which is not there; known steps: a, b"]),
    "kept nowhere": ("cache: {keep: [c]}", ["4: cache: keep names a step 'c', which is not there; known steps: a, b"]),
    "a place of no kind": ("output_dir: s4://bucket/run", ["4: output_dir: 's4://' is no kind of storage"]),
    "apart from the others": (f"{REMOTE}executor: {{type: ray}}",
        ["4: output_dir: tasks of executor ray work beside one another: add work_dir, a folder that all machines"]),
    "apart from the others, and broken": (f"{REMOTE}executor: {{typ: ray}}", ["5: executor has no option 'typ'"]),
    "broken parts": ("executor: {typ: ray}\ncache: {kepp: true}\nbudget: {csot: 1}\nsandbox: 5",
        ["4: executor has no option 'typ'", "5: cache has no option 'kepp'", "6: budget has no option 'csot'",
         "7: sandbox must be a mapping of names to values, got 5"]),
}  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_is_told_by_its_line(more: str, expected: list[str], tmp_path: Path) -> None:
    check(problems(write(tmp_path, f"{TWO}{more}\n")), [f"recipe.yaml:{line}" for line in expected])


LIMITED = "    base_url: simulated\n    model: m\n    max_concurrency: 2\n"
ASKS = f"{READ}  - {{name: b, block: respond, n: 1, prompt: hi}}\nmodels:\n  teacher:\n{LIMITED}  idle:\n{LIMITED}"


def test_only_a_model_that_is_asked_needs_enough_for_all_tasks(tmp_path: Path) -> None:
    for enough in ("tasks: 2, workers: 2", "tasks: 9, workers: 2"):
        assert "idle" in Recipe.load(write(tmp_path, f"{ASKS}executor: {{{enough}}}\n")).models
    said = "recipe.yaml:13: executor: model 'teacher': max_concurrency is 2, and 3 tasks need at least 1 each"
    check(problems(write(tmp_path, f"{ASKS}executor: {{tasks: 3, workers: 3}}\n")), [said])
