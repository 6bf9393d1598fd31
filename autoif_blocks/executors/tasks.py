"""What an executor is given, and how a task that runs elsewhere tells the run what became of it."""

from __future__ import annotations

import contextlib
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
from ..state import read_object
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
