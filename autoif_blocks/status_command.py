"""`autoif status`: how far a run is, by whoever sees its output directory, or may read the remote one that it fills."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .claim import FILE as CLAIM
from .errors import RecipeError
from .mirror import KEPT, STATUS
from .plain import plain
from .progress import compact, duration
from .state import WORK, read_object
from .status import Status, TaskStatus, look
from .storage import Remote, check_url, copy_of, is_url, local_folder

_WIDTH = 100  # characters where there is no terminal
_SHOWN = 20  # tasks of a kind that are shown one by one


def look_at(where: str | Path) -> Status:
    """How far the run into a directory is, or into a remote one by its URL, or what became of it. A run on this machine
    is looked at where it works; of one elsewhere it is known what it has sent last.

    Raises:
        RecipeError: none was ever begun there, or the URL cannot be used.
        StopRun: the remote directory cannot be read.
    """
    if not is_url(str(where)):
        return look(Path(where))
    url = str(where).rstrip("/")
    try:
        check_url(url, written=False)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    remote, folder = Remote(url), local_folder(url)
    run = remote.read(CLAIM).get("run") or {}
    ours = (read_object(folder / KEPT) or {}).get("id")
    if run.get("folder") == ours and run and (folder / WORK).is_dir():
        return look(folder)
    status = _sent(remote) or _left(url, bool(run))
    if not run:
        return status
    age = max(0.0, time.time() - run["seen"])
    state = "silent" if status.state == "running" and age > run["lasts"] else status.state
    return replace(status, state=state, host=run["host"], told=age)


def _sent(remote: Remote) -> Status | None:
    """What the run has last sent of how far it is."""
    told = remote.read(STATUS)
    try:
        return Status(**{**told, "tasks": [TaskStatus(**task) for task in told["tasks"]]})
    except (KeyError, TypeError):  # there is nothing yet, or it is of another version
        return None


def _left(url: str, begun: bool) -> Status:
    """What the results tell."""
    found = copy_of(url, lambda name: name == "run.json")
    if begun and not (found / "run.json").is_file():
        return Status("starting", "", False, [])
    try:
        return look(found)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(found), url)) from error


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
        table.add_row(Text(plain(f"{step['number']:>2} {step['name']}")), *cells)
    console.print(table)
    for line in _lines(status.tasks):
        console.print(line)
    if status.told is not None:
        console.print(plain(f"as {status.host} has told {duration(status.told)} ago"), soft_wrap=True)
    console.print(plain(f"{status.state}{f': {status.failure}' if status.failure else ''}"), soft_wrap=True)


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
