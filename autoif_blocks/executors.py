"""From blocks to datatrove's executors: stages, tasks, and where their log lines go."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from .blocks.base import Block
from .blocks.readers import Reader, ReadStep
from .blocks.writers import StepFile
from .context import RunContext, RunSettings
from .errors import AutoIFError, StopRun
from .outputs import merge
from .state import finished
from .steps import ExecutorConfig
from .stopping import StopFlag, stop_flag
from .workers import run_in_workers


@dataclass
class Stage:
    """Blocks that one executor runs: on all tasks, or on one because a block must see the whole set."""

    tasks: int
    pipeline: list[Block] = field(default_factory=list)


def stages_of(blocks: Iterable[Block], tasks: int, work: Path) -> list[Stage]:
    """The blocks in stages: with one task all stream in one; with several, a block that must see the whole set gets a
    stage of one task, together with readers right before it. What passes between stages lies in `work`."""
    stages = [Stage(tasks)]
    for block in blocks:
        here = stages[-1]
        if tasks > 1 and block.whole_set and here.tasks > 1:
            if all(isinstance(earlier, Reader) for earlier in here.pipeline):
                here.tasks = 1
            else:
                stages.append(Stage(1))
        elif tasks > 1 and not block.whole_set and here.tasks == 1 and not isinstance(block, StepFile):
            stages.append(Stage(tasks))
        stages[-1].pipeline.append(block)
    for number, (before, after) in enumerate(itertools.pairwise(stages)):
        before.pipeline.append(StepFile("stage.jsonl", visible=False))
        after.pipeline.insert(0, ReadStep(str(work / f"after-{number}.jsonl"), visible=False))
    return stages


def execute(stages: list[Stage], config: ExecutorConfig, settings: RunSettings, logs: Path) -> bool:
    """Runs the stages one after another, each as a datatrove pipeline; their parts are left below `settings.work_dir`.

    Returns:
        Whether all records have come to their end. If not, the run was told to stop.

    Raises:
        StopRun: the run cannot go on.
    """
    work = Path(settings.work_dir)
    flag = stop_flag(settings.stop_file or work / "stop.json")
    settings = replace(settings, stop_file=str(flag.path))
    folders = [work / f"stage-{number}" for number in range(len(stages))]
    contexts = [RunContext(replace(settings, work_dir=str(folder))) for folder in folders]
    for stage, context in zip(stages, contexts, strict=True):
        for block in stage.pipeline:
            block.bind(block.step, block.position, context)
        context.announce()
    for number, (stage, folder, context) in enumerate(zip(stages, folders, contexts, strict=True)):
        executor = _Local(
            pipeline=[*stage.pipeline, RunScope(context)],
            tasks=stage.tasks,
            workers=min(stage.tasks, config.workers),
            skip_completed=False,
            logging_dir=str(logs),
        )
        executor.flag = flag
        try:
            executor.run()
        except AutoIFError:
            raise
        except SystemExit as error:
            raise StopRun(f"a block called for the end of the program: {error!r} ({logs} has the traceback)") from error
        except Exception as error:
            raise StopRun(f"{type(error).__name__}: {error} (not foreseen: {logs} has the traceback)") from error
        if not all(finished(folder / f"{rank:05d}.status.json") for rank in range(stage.tasks)):
            return False
        if number < len(stages) - 1:
            if flag.look() is not None:
                return False
            merge(folder.glob("*/stage.jsonl"), work / f"after-{number}.jsonl")
    return True


class RunScope(PipelineStep):  # type: ignore[misc]  # datatrove has no type hints
    """The outermost element of a pipeline: opens what its blocks share, and closes it whatever happens."""

    name = "run"
    type = "🧱 - AUTOIF"

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self.context = context

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.context.open(rank)
        finished = False
        try:
            yield from data or ()
            finished = True
        finally:
            self.context.close(finished)


class _Local(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor with its log lines in log files only: the terminal belongs to the progress view."""

    pipeline: list[PipelineStep]
    flag: StopFlag

    def run(self) -> None:
        with self._stderr_in("run", restore=True):
            self.save_executor_as_json()
            if self.workers > 1:
                run_in_workers(self._run_task, self.tasks, self.workers, self.flag)
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
        with self._stderr_in(f"task_{rank:05d}"):
            return super()._run_for_rank(rank, local_rank, node_rank)

    @contextlib.contextmanager
    def _stderr_in(self, name: str, restore: bool = False) -> Iterator[None]:
        path = Path(self.logging_dir.path) / f"{name}.stderr.log"
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
