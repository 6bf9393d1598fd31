"""Stages: the runs of blocks that an executor can spread over tasks, and what passes from one to the next.

Every task of a stage reads all that the stage before has left and takes the records whose id is its own, so a shard
depends neither on how many tasks wrote the records nor on where, and there may be more tasks than records.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from filelock import FileLock

from ..blocks.base import Block
from ..blocks.readers import Reader, ReadStep
from ..blocks.writers import StepFile
from ..context import RunContext
from ..errors import StopRun
from ..outputs import merge, raw_id
from ..records import Record, from_row, shard_of
from ..resolve import loaded_from
from ..steps import ExecutorConfig
from .tasks import unfinished

_FILE = "stage.jsonl"


@dataclass
class Stage:
    """Blocks that one executor runs: on all tasks, or on one because a block must see the whole set."""

    tasks: int
    pipeline: list[Block] = field(default_factory=list)
    reshards: bool = False
    """whether it is there to deal the records out anew"""


def folder_of(work: Path, number: int) -> Path:
    """Where the tasks of a stage leave their parts and say how far they are."""
    return work / f"stage-{number}"


def stages_of(blocks: Iterable[Block], executor: ExecutorConfig, work: Path) -> list[Stage]:
    """The blocks in stages: with one task all stream in one; with several, a block that must see the whole set gets a
    stage of one task, together with readers right before it, and another begins after each step of `reshard_after`.
    What passes between stages lies in `work`."""
    tasks, cut_after = executor.tasks, executor.reshard_after or []
    stages = [Stage(tasks)]
    for block in blocks:
        here = stages[-1]
        last = here.pipeline[-1].step if here.pipeline else block.step
        if tasks > 1 and here.tasks > 1 and last != block.step and last in cut_after and not block.whole_set:
            stages.append(Stage(tasks, reshards=True))
        elif tasks > 1 and block.whole_set and here.tasks > 1:
            if all(isinstance(earlier, Reader) for earlier in here.pipeline):
                here.tasks = 1
            else:
                stages.append(Stage(1))
        elif tasks > 1 and not block.whole_set and here.tasks == 1 and not isinstance(block, StepFile):
            stages.append(Stage(tasks))
        stages[-1].pipeline.append(block)
    for number, (before, after) in enumerate(itertools.pairwise(stages)):
        before.pipeline.append(StepFile(_FILE, visible=False))
        after.pipeline.insert(0, ReadStage(str(work / f"after-{number}.jsonl"), number, before.tasks))
    return stages


def carried(stages: Iterable[Stage], more: Iterable[str], folder: Path) -> list[str]:
    """Copies the files of users' own blocks, the modules beside them, and those of `more` folders, into `folder`: jobs
    that wait in a queue run the code that was checked. Returns what must be on a task's path, the copies first."""
    classes = {type(getattr(block, "inner", block)) for stage in stages for block in stage.pipeline}
    files = (loaded_from(cls) for cls in classes)
    places = sorted({*filter(None, more), *(str(file.parent) for file in files if file is not None)})
    for place in places:
        folder.mkdir(parents=True, exist_ok=True)
        for path in Path(place).glob("*.py"):
            shutil.copy(path, folder)
    return [str(folder), *places] if places else []


class ReadStage(ReadStep):
    """Reads what the stage before has left; the first task to come merges the parts, sorted by id, for all of them."""

    def __init__(self, path: str, number: int, tasks: int) -> None:
        super().__init__(path, visible=False)
        self.number = number
        self.tasks = tasks

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self._shard = rank, world_size
        yield from super().run(data, rank, world_size)

    def read(self) -> Iterable[Record]:
        if self.live.stopping:
            return self.live.cut_short()
        self._merge()
        rank, tasks = self._shard
        with Path(self.path).open("rb") as file:
            for line in file:
                # All tasks read all rows: what is another's is not worth a look at more than its id.
                if tasks == 1 or _shard(line, tasks) == rank:
                    yield from_row(json.loads(line))

    def _merge(self) -> None:
        path = Path(self.path)
        folder = folder_of(path.parent, self.number)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file():
                return
            if ranks := unfinished(folder, self.tasks):
                raise StopRun(f"task {ranks[0]} of stage {self.number} has not finished: its records would be missing")
            merge(folder.glob(f"*/{_FILE}"), path)


def _shard(line: bytes, tasks: int) -> int:
    name = raw_id(line)
    if name is None:
        raise StopRun(f"a row between two stages is damaged: {line[:80]!r}")
    return shard_of(name.decode("utf-8", "surrogatepass"), tasks)


class RunScope(PipelineStep):  # type: ignore[misc]  # datatrove has no type hints
    """The outermost element of a pipeline: opens what its blocks share, and closes it whatever happens."""

    name = "run"
    type = "🧱 - AUTOIF"

    def __init__(self, context: RunContext, keys: Sequence[str] = ()) -> None:
        """`keys` names the environment variables that hold the models' keys. Their values never travel."""
        super().__init__()
        self.context = context
        self.keys = keys

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if missing := [name for name in self.keys if name not in os.environ]:
            raise StopRun(
                f"the environment variable {missing[0]}, which holds a model's key, is not set on "
                f"{socket.gethostname()}, where task {rank} runs: set it where the cluster's workers are started"
            )
        self.context.open(rank)
        finished = False
        try:
            yield from data or ()
            finished = True
        finally:
            self.context.close(finished)
