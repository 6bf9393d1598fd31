"""`autoif plan`: into which stages and tasks a recipe is cut, and what it will take, reckoned from a real sample."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .blocks.base import AsyncBlock, Block
from .blocks.filters import Limit
from .blocks.readers import Reader
from .blocks.writers import StepFile
from .cache_parts import fold, part_of
from .errors import AutoIFError, StopRun
from .executors import Stage, stages_of
from .growth import Grower
from .models import ModelConfig
from .outputs import CACHE_LOCK, held
from .progress import ConsoleListener, compact, duration
from .recipe import Recipe
from .run import Listener, RunOptions
from .steps import Step

_COUNTED = ("requests", "prompt_tokens", "completion_tokens", "cost", "busy")


@dataclass
class Expected:
    """What a step will take in a run of the whole recipe, the sample's counts times their share of it."""

    step: str
    number: int
    out: float
    """records that leave it"""
    requests: float
    prompt_tokens: float
    completion_tokens: float
    cost: float
    busy: float
    """seconds that its requests take, summed"""
    p50: float


@dataclass
class Estimate:
    """What a whole run will take."""

    sample: int
    """records that left step 1 in the sample"""
    of: float
    """records that will leave step 1 in the run"""
    steps: list[Expected]
    records: float
    """that come to the end"""
    totals: dict[str, float]
    seconds: float
    """until it is complete, on this machine, if the servers answer as fast under full load as they did in the sample"""
    limit: str
    """what the time is due to"""


class _Sampling(ConsoleListener):
    """Shows how the sample goes, and nothing of where its files are: they are gone when it is done."""

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None:
        self.recipe, self.steps = recipe, steps
        self.note(f"{recipe.name}: a sample is run for real")


def stages(recipe: Recipe) -> list[Stage]:
    """The stages that a run of the recipe would have, without what passes between them."""

    def blocks() -> Iterator[Block]:
        for step in recipe.steps:
            for block in [*(spec.build() for spec in step.blocks), StepFile(step.file)]:
                block.step, block.order = step.name, step.number
                yield block

    return stages_of(blocks(), recipe.executor, recipe.output_dir)


def estimate(recipe: Recipe, sample: int, listener: Listener | None = None) -> Estimate:
    """Runs the recipe on a sample and reckons what the whole will take.

    Step 1 is run whole if what it asks does not grow with what it reads, and on the first `sample` rows of its files if
    it does. Then `sample` of its records go on, those with the smallest ids, which is a random choice since ids are
    hashes. The completions are kept for the run.

    Raises:
        AutoIFError: the sample run cannot go on, or nothing of it leaves step 1.
    """
    whole_first = step_1_is_cheap(recipe)
    options = RunOptions(limit=sample, limit_reading=not whole_first, listener=listener)
    with tempfile.TemporaryDirectory(prefix="autoif-plan-") as name:
        # A cache of its own: what is replayed tells nothing of what it took. And no target: a sample has its size.
        trial = recipe.apart(Path(name), Path(name) / "cache")
        before = _processor_seconds()
        try:
            result = trial.run(options)
        finally:
            _keep(trial.cache_dir, recipe.cache_dir)
        took = tuple(now - then for now, then in zip(_processor_seconds(), before, strict=True))
    return _reckon(recipe, result["steps"], 1.0 if whole_first else _unread(recipe, sample), took)


def _processor_seconds() -> tuple[float, float]:
    """That this process has taken, and those that it has started and that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, others = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, others


def _keep(paid: Path, cache_dir: Path) -> None:
    """What the sample has paid for, the run shall not pay for again."""
    # A run that has the cache now will ask for itself.
    with contextlib.suppress(StopRun), held(cache_dir, CACHE_LOCK, ""):
        shutil.copytree(paid, part_of(cache_dir, "plan"), dirs_exist_ok=True)
        deque(fold(cache_dir), maxlen=0)


def step_1_is_cheap(recipe: Recipe) -> bool:
    """Whether what step 1 asks does not grow with what it reads."""
    grower = Grower.of(recipe.steps)
    asks = any(issubclass(spec.cls, AsyncBlock) for spec in recipe.steps[0].blocks)
    return not asks or (grower is not None and grower.step == 1)


def _unread(recipe: Recipe, sample: int) -> float:
    """How many times as much there is to read as the sample has read."""
    rows = read = 0
    for spec in recipe.steps[0].blocks:
        block = spec.build()
        if isinstance(block, Reader):
            count = sum(1 for _ in block.read())
            read += min(count, sample)
            rows += count
    return rows / read if read else 1.0


def _reckon(recipe: Recipe, rows: list[dict[str, Any]], unread: float, took: Sequence[float]) -> Estimate:
    made = next(block["in"] for block in rows[0]["blocks"] if block["block"] == Limit.__name__)
    if not rows[0]["out"]:
        raise AutoIFError(f"nothing of the sample has left step 1 '{rows[0]['name']}': there is nothing to reckon from")
    of = made * unread
    share = of / rows[0]["out"]
    target = 1.0
    if recipe.target is not None and rows[-1]["out"]:
        target = max(1.0, recipe.target / (rows[-1]["out"] * share))
    steps = []
    for number, row in enumerate(rows, start=1):
        factor = (unread if number == 1 else share) * target
        out = of * target if number == 1 else row["out"] * factor
        counts = {name: row[name] * factor for name in _COUNTED}
        steps.append(Expected(row["name"], number, out, **counts, p50=row["p50"]))
    totals = {name: sum(getattr(step, name) for step in steps) for name in _COUNTED}
    own, others = took
    machine = share * target * max(own, (own + others) / len(os.sched_getaffinity(0)))
    seconds, limit = max(_time(recipe, rows, steps), (machine, "this machine's processors"))
    return Estimate(rows[0]["out"], of * target, steps, steps[-1].out, totals, seconds, limit)


def _time(recipe: Recipe, rows: list[dict[str, Any]], steps: list[Expected]) -> tuple[float, str]:
    """The slowest model's time, with all its slots full, and then the last record's way through all steps."""
    taken = {name: dict.fromkeys(_COUNTED, 0.0) for name in recipe.models}
    for step, row, expected in zip(recipe.steps, rows, steps, strict=True):
        models = [(spec.cls.__name__, spec.build()) for spec in step.blocks]
        for block in row["blocks"]:
            asks = (made.model for name, made in models if name == block["block"] and hasattr(made, "model"))
            if (model := next(asks, None)) is not None:
                for name in _COUNTED:
                    taken[model][name] += getattr(expected, name) * (block[name] / row[name] if row[name] else 0.0)
    executor = recipe.executor
    bounds = [
        bound
        for name, model in recipe.models.items()
        for bound in _bounds(name, model, taken[name], executor.at_once if executor.serves_each(model) else 1)
    ]
    seconds, limit = max(bounds, default=(0.0, "nothing"))
    return seconds + sum(step.p50 for step in steps), limit


def _bounds(name: str, model: ModelConfig, taken: dict[str, float], servers: int) -> Iterator[tuple[float, str]]:
    tokens = taken["prompt_tokens"] + taken["completion_tokens"]
    each = f", of each of {servers} servers" if servers > 1 else ""
    limits = [("max_concurrency", taken["busy"], model.max_concurrency if model.mode == "live" else 0)]
    limits += [("rpm", 60 * taken["requests"], model.rpm or 0), ("tpm", 60 * tokens, model.tpm or 0)]
    for limit, amount, most in limits:
        if most:
            yield amount / (most * servers), f"model '{name}': {limit} {most}{each}"


def show(recipe: Recipe, sample: int | None, as_json: bool) -> None:
    """Prints the stages and, with a sample, what is expected.

    Raises:
        AutoIFError: see `estimate`.
    """
    found = estimate(recipe, sample, None if as_json else _Sampling()) if sample is not None else None
    cut = [
        (stage, list(dict.fromkeys(block.step for block in stage.pipeline if block.step))) for stage in stages(recipe)
    ]
    if as_json:
        plan = {"recipe": str(recipe.path), "stages": [{"tasks": stage.tasks, "steps": steps} for stage, steps in cut]}
        print(json.dumps({**plan, **({"expected": asdict(found)} if found else {})}, indent=2))
        return
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    executor = recipe.executor
    console.print(
        f"{recipe.path}: {len(recipe.steps)} steps in {len(cut)} {'stage' if len(cut) == 1 else 'stages'}, "
        f"executor {executor.type}, {min(executor.tasks, executor.workers)} tasks at once",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    for number, (stage, steps) in enumerate(cut, start=1):
        told = steps[0] if len(steps) == 1 else f"{steps[0]} … {steps[-1]}"
        whole = [block.name for block in stage.pipeline if block.whole_set]
        why = f"  ({whole[0]} must see all records)" if whole and stage.tasks < executor.tasks else ""
        why = "  (reshard_after: the records are dealt out anew)" if stage.reshards else why
        what = f"{stage.tasks} task{'s' if stage.tasks > 1 else ''}"
        console.print(f"  stage {number}  {what:9} {told}{why}", soft_wrap=True, markup=False)
    if found is not None:
        _print(console, recipe, found)


def _print(console: Console, recipe: Recipe, found: Estimate) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True, footer_style="bold")
    titles = {"requests": "requests", "prompt_tokens": "prompt tokens", "completion_tokens": "completion tokens"}
    table.add_column("step", "all", no_wrap=True)
    columns = {"records": (compact(round(found.records)), [compact(round(step.out)) for step in found.steps])}
    for name, title in titles.items():
        cells = [compact(round(count)) if (count := getattr(step, name)) else "" for step in found.steps]
        columns[title] = (compact(round(found.totals[name])), cells)
    if any(model.price for model in recipe.models.values()):
        cells = [f"{step.cost:.2f}" if step.requests else "" for step in found.steps]
        columns["cost"] = (f"{found.totals['cost']:.2f}", cells)
    for title, (footer, _) in columns.items():
        table.add_column(title, footer, justify="right", no_wrap=True)
    for place, step in enumerate(found.steps):
        table.add_row(f"{step.number:>2} {step.step}", *(cells[place] for _, cells in columns.values()))
    console.print()
    console.print(
        f"expected, from {found.sample} of about {compact(round(found.of))} records that leave step 1"
        f"{f', for a target of {recipe.target}' if recipe.target else ''}:",
        soft_wrap=True,
    )
    console.print(table)
    console.print(
        f"about {duration(found.seconds)}, if answers take as long as in the sample; what decides it is {found.limit}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
