"""How far a run is, step by step and task by task: read from the files that its tasks write."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import RecipeError
from .state import STAGES, WORK, RunState, finished, read_object
from .steps import Step

SILENT = 30.0  # seconds without news from a task that writes twice a second


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
    host: str = ""
    """of a run into a remote place: the machine that tells of it"""
    told: float | None = None
    """seconds since that machine has sent what is told here"""


def look(output: Path) -> Status:
    """How far the run into a directory is, or what became of it.

    Raises:
        RecipeError: none was ever begun there, or what its tasks have written is damaged.
    """
    try:
        return _looked(output)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecipeError(f"what the run has left in {output / WORK} is damaged ({error!r}): run it again") from error


def _looked(output: Path) -> Status:
    work, last = output / WORK, RunState.earlier(output)
    plan = read_object(work / STAGES)
    if plan is None:
        if work.is_dir():
            return Status("starting", "", False, [])
        if last is None:
            raise RecipeError(f"there is no run in {output}: name the output directory of one")
        state, rows = str(last.get("state", "unfinished")), [_row(step) for step in last["steps"]]
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
    if last is not None and _written(output / "run.json") > _written(work / STAGES):
        # A run that is about to tidy up, or what a failed one has left.
        return Status(last["state"], last.get("failure", ""), last["state"] == "completed", rows, tasks)
    return Status(state, str(failures[0]["message"]) if failures else "", False, rows, tasks)


def _written(path: Path) -> int:
    """When; 0 if it has gone meanwhile."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _row(step: dict[str, Any]) -> dict[str, Any]:
    counts = {name: step.get(name) or 0 for name in ("in", "out", "requests", "hits")}
    lost = sum((step.get("dropped") or {}).values())
    return {"name": step["name"], "number": step["number"], **counts, "dropped": lost}


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
