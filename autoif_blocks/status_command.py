"""`autoif status`: how far a run is, by whoever sees its output directory: read from files that its tasks write."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from .errors import RecipeError
from .progress import compact, duration
from .run import WORK
from .state import STAGES, RunState, finished, read_object
from .steps import Step

SILENT = 30.0  # seconds without news from a task that writes twice a second
_WIDTH = 100  # characters where there is no terminal
_SHOWN = 20  # tasks of a kind that are shown one by one


@dataclass(frozen=True)
class TaskStatus:
    """One task of one stage."""

    stage: int
    task: int
    state: Literal["waiting", "running", "silent", "failed", "finished"]
    """`silent`: begun, not finished, and without a sign of life for half a minute"""
    age: float | None
    """seconds since it last wrote how far it is, by the file's clock and this machine's; None: it has not begun"""


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    state: str
    """of a run that is under way `running`, `silent` or `failed`; else `completed`, `stopped` or `failed`"""
    failure: str
    complete: bool
    steps: list[dict[str, Any]]
    """name, number, in, out, dropped, requests, hits"""
    tasks: list[TaskStatus] = field(default_factory=list)
    """of a run that is under way, or was killed"""


def look(output: Path) -> Status:
    """How far the run into a directory is, or what became of it.

    Raises:
        RecipeError: none was ever begun there.
    """
    work, last = output / WORK, RunState.earlier(output)
    plan = read_object(work / STAGES)
    if plan is None:
        if work.is_dir():
            return Status("starting", "", False, [])
        if last is None:
            raise RecipeError(f"there is no run in {output}: name the output directory of one")
        state, rows = last["state"], [_row(step) for step in last["steps"]]
        return Status(state, last.get("failure", ""), state == "completed", rows)
    steps = [Step(name, number, ()) for name, number in plan["steps"]]
    rows = [_row(step.to_dict()) for step in RunState(work, steps).read()]
    tasks = [
        _task(work / f"stage-{stage}", stage, task)
        for stage, count in enumerate(plan["tasks"])
        for task in range(count)
    ]
    states = {task.state for task in tasks}
    failures = [told for path in sorted(work.glob("stage-*/*.failure.json")) if (told := read_object(path))]
    state = "failed" if failures else "running" if "running" in states or "silent" not in states else "silent"
    if last is not None and (output / "run.json").stat().st_mtime_ns > (work / STAGES).stat().st_mtime_ns:
        # A run that is about to tidy up, or what a failed one has left.
        return Status(last["state"], last.get("failure", ""), last["state"] == "completed", rows, tasks)
    return Status(state, str(failures[0]["message"]) if failures else "", False, rows, tasks)


def _row(step: dict[str, Any]) -> dict[str, Any]:
    row = {name: step[name] for name in ("name", "number", "in", "out", "requests", "hits")}
    return {**row, "dropped": sum(step["dropped"].values())}


def _task(folder: Path, stage: int, task: int) -> TaskStatus:
    path = folder / f"{task:05d}.status.json"
    try:
        age = max(0.0, time.time() - path.stat().st_mtime) if (folder / f"{task:05d}").is_dir() else None
    except OSError:
        age = None
    if path.with_name(f"{task:05d}.failure.json").exists():
        return TaskStatus(stage, task, "failed", age)
    if age is None:
        return TaskStatus(stage, task, "waiting", None)
    return TaskStatus(stage, task, "finished" if finished(path) else "silent" if age > SILENT else "running", age)


def show(status: Status, as_json: bool) -> None:
    """Prints it on standard output."""
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH, markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    for title in ("in", "out", "dropped", "requests", "hits"):
        table.add_column(title, justify="right")
    for step in status.steps:
        cells = [compact(step[name]) for name in ("in", "out", "dropped", "requests", "hits")]
        table.add_row(f"{step['number']:>2} {step['name']}", *cells)
    console.print(table)
    for line in _lines(status.tasks):
        console.print(line)
    console.print(f"{status.state}{f': {status.failure}' if status.failure else ''}", soft_wrap=True)


def _lines(tasks: list[TaskStatus]) -> Iterator[str]:
    for stage in sorted({task.stage for task in tasks}):
        ours = [task for task in tasks if task.stage == stage]
        counts = {state: sum(task.state == state for task in ours) for state in ("finished", "running", "waiting")}
        yield f"stage {stage}: {len(ours)} tasks, " + ", ".join(f"{count} {state}" for state, count in counts.items())
        for state in ("failed", "silent", "running"):
            some = [task for task in ours if task.state == state]
            for task in some[:_SHOWN]:
                news = "no news" if task.age is None else f"last news {duration(task.age)} ago"
                yield f"  task {task.task:>5} {state}, {news}"
            if len(some) > _SHOWN:
                yield f"  … and {len(some) - _SHOWN} more {state}"
