"""What an executor is given, and how a task that runs elsewhere tells the run what became of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from loguru import logger

from .. import errors
from ..errors import AutoIFError, StopRun
from ..outputs import write_json
from ..state import finished, read_object
from ..stopping import StopFlag


@dataclass(frozen=True)
class StageRun:
    """A stage that is ready to be run."""

    number: int
    pipeline: list[PipelineStep]
    tasks: int
    at_once: int
    """tasks side by side"""
    folder: Path
    """where its tasks leave their parts"""
    logs: Path
    flag: StopFlag
    code: tuple[str, ...] = ()
    """folders that a task must have on its path, for blocks from files beside the recipe"""

    @property
    def python_path(self) -> str:
        return os.pathsep.join([*self.code, *filter(None, [os.environ.get("PYTHONPATH")])])


class Away:
    """For executors whose tasks run where the run cannot hear them raise: their failures go through files."""

    folder: Path
    stop_file: Path

    def place(self, stage: StageRun) -> None:
        """Says where the failures of a stage's tasks are told. Paths only: executors travel."""
        self.folder, self.stop_file = stage.folder, stage.flag.path

    @contextlib.contextmanager
    def telling(self, rank: int) -> Iterator[None]:
        """Leaves the failure of a task where the run will look for it, and ends the other tasks."""
        path = self.folder / f"{rank:05d}.failure.json"
        path.unlink(missing_ok=True)  # of an earlier attempt
        try:
            yield
        except Exception as error:
            told = error if isinstance(error, AutoIFError) else StopRun(f"task {rank}: {type(error).__name__}: {error}")
            write_json(path, {"error": type(told).__name__, "message": str(told)})
            flag = StopFlag(self.stop_file)
            flag.request("failure", str(told))
            flag.request("failure", "", 0.0)
            raise


def unfinished(folder: Path, tasks: int) -> list[int]:
    """The tasks of a stage that have not brought all their records to their end."""
    return [rank for rank in range(tasks) if not finished(folder / f"{rank:05d}.status.json")]


def check_ended(stage: StageRun, hint: str) -> None:
    """Raises what kept the tasks of a stage from their end, unless the run was told to stop."""
    raise_told(stage.folder)
    if stage.flag.look() is None and (lost := unfinished(stage.folder, stage.tasks)):
        tasks = f"task {lost[0]}" if len(lost) == 1 else f"{len(lost)} tasks, the first of them task {lost[0]},"
        raise StopRun(
            f"{tasks} of stage {stage.number} did not come to an end ({hint}). "
            "What was paid for is kept: run again to continue"
        )


def raise_told(folder: Path) -> None:
    """Raises the failure that a task has told of, if one has."""
    for path in sorted(folder.glob("*.failure.json")):
        told: dict[str, Any] = read_object(path) or {}
        kind = getattr(errors, str(told.get("error")), StopRun)
        raise kind(told.get("message", f"a task failed: see {path}"))


@contextlib.contextmanager
def stderr_in(path: Path, restore: bool = False) -> Iterator[None]:
    """datatrove's log lines, and whatever else is written to stderr, in a file: the terminal belongs to the progress
    view."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file, contextlib.redirect_stderr(file):
        logger.remove()
        logger.add(file)
        try:
            yield
        finally:
            logger.remove()  # datatrove's handlers, too, hold this file
    if restore:
        logger.add(sys.stderr)
