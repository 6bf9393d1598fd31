"""Tasks in this process, or in a few on this machine."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats

from ..stopping import StopFlag
from ..workers import run_in_workers
from .tasks import StageRun, stderr_in


def run_locally(stage: StageRun) -> None:
    """Runs a stage.

    Raises:
        AutoIFError: what one of its tasks raised, or that a worker died.
    """
    executor = _Local(
        pipeline=stage.pipeline, tasks=stage.tasks, workers=stage.at_once, skip_completed=False,
        logging_dir=str(stage.logs),
    )  # fmt: skip
    executor.flag = stage.flag
    executor.run()


class _Local(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with its log lines in log files only, and with workers whose death is noticed."""

    pipeline: list[PipelineStep]
    flag: StopFlag

    def run(self) -> None:
        with stderr_in(self._log("run"), restore=True):
            self.save_executor_as_json()
            if self.workers > 1:
                run_in_workers(self._run_task, range(self.tasks), self.workers, self.flag)
                return
            # datatrove would start a manager process even here, and a kill -9 of this one would leave it behind.
            for rank in range(self.tasks):
                self._run_task(rank)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "flag"}

    def _run_task(self, rank: int) -> None:
        pipeline = self.pipeline  # each task runs a copy, as datatrove does it
        self.pipeline = deepcopy(pipeline)
        try:
            self._run_for_rank(rank)
        finally:
            self.pipeline = pipeline

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with stderr_in(self._log(f"task_{rank:05d}")):
            return super()._run_for_rank(rank, local_rank, node_rank)

    def _log(self, name: str) -> Path:
        return Path(self.logging_dir.path) / f"{name}.stderr.log"
