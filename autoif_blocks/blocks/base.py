"""The contract of a block: read records, write records. The four kinds that most blocks are stand in `kinds.py`.

A block is a datatrove `PipelineStep`. Its constructor's signature is its YAML schema, `reads` and `writes` name the
fields that it needs and adds, and its docstring is what `autoif blocks NAME` prints. Nothing is registered: a recipe
names a block by its short name (`blocks.BLOCKS`) or by its path, `my_blocks.py:NotAnEcho`.

| kind        | override                               | to                                                       |
|-------------|----------------------------------------|----------------------------------------------------------|
| `Block`     | `handle(record)`                       | turn one record into none, one or several                |
| `Generator` | `parse(completions, record)`           | make records of what a model wrote                       |
| `Executor`  | `jobs(record)`, `judge(record, runs)`  | run code in the sandbox and say what the results mean    |
| `Scorer`    | `score(record)`                        | add a value to the record                                |
| `Filter`    | `reject(record)`                       | say why a record must go, or None                        |

In all of them, `raise DropRecord(reason, detail)` drops the record, and `self.discard(record, reason, detail)` notes a
piece (a completion, a function) that is left out while the record goes on. Any other exception drops the record too,
as `error`; a block that fails on every one of its first records is broken and stops the run.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from ..accounting import Meter
from ..context import RunContext
from ..errors import AutoIFError, DropRecord, StopRun
from ..records import Record
from ..streaming import stream

BROKEN_AFTER = 20  # records that all raise: no bad data, a broken block


class Block(PipelineStep):  # type: ignore[misc]  # datatrove has no type hints
    """Turns each record into none, one or several records."""

    kind: ClassVar[str] = "block"
    type = "🧱 - AUTOIF"
    reads: Sequence[str] = ()
    """fields that a record must have when it comes"""
    writes: Sequence[str] = ()
    """fields that a record has, besides those it came with, when it leaves"""
    quick: ClassVar[bool] = False
    """whether a run that must end now still lets it handle what comes, rather than leave the record unfinished"""
    whole_set: bool = False
    """whether the block must see all records in one task (a global deduplication, say)"""
    grows: ClassVar[str] = ""
    """the option, a whole number, that a run with a `target` raises to get more records from this block"""
    files: ClassVar[Sequence[str]] = ()
    """options that name files to read; a recipe gives them relative to its own folder"""
    step = ""
    position = 0
    order = 0
    """the number of its step: when slots are short, requests of earlier steps are sent first"""
    context: RunContext | None = None

    def __init__(self) -> None:
        self.name = type(self).__name__
        super().__init__()

    def bind(self, step: str, position: int, context: RunContext) -> None:
        """Tells the block where in a recipe it stands. A block that is not bound works too, but counts for itself."""
        self.step, self.position, self.context = step, position, context
        context.places.append((step, position, self.name))

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        """The fields of a record that leaves, given those of one that comes."""
        return before | frozenset(self.writes)

    def check(self) -> Iterable[str]:
        """What is wrong with the files that the options name, and what to do; asked before a run starts."""
        return ()

    def handle(self, record: Record) -> Iterable[Record]:
        """The records that this one becomes. Override this, or one of the kinds' own methods."""
        raise NotImplementedError(f"{type(self).__name__} must define handle()")

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """datatrove's entry point: documents in, documents out."""
        for document in data or ():
            record = Record(document)
            self.meter.taken += 1
            if self.context is not None and self.context.overdue and not self.quick:
                self.context.cut_short()
                continue
            try:
                children: Iterable[Record] | Exception = list(self.handle(record))
            except Exception as error:
                children = error
            except SystemExit as error:  # of a block's own, it would end the run without a word
                raise StopRun(
                    f"step '{self.step}': {self.name} called for the end of the program: {error!r}"
                ) from error
            yield from self.deliver(record, children)

    def deliver(self, record: Record, children: Iterable[Record] | Exception) -> Iterator[Document]:
        """Counts and passes on what became of a record: its children, or the exception that it ended in.

        Raises:
            StopRun: the exception is one that ends the run, or the block fails on everything.
        """
        if isinstance(children, Exception):
            evidence = children.evidence if isinstance(children, DropRecord) else {}
            self.drop(record.with_(**evidence), *self._reason(children))
            return
        given, meter = 0, self.meter
        for child in children:
            meter.created += given > 0  # one by one: the counts add up even if the run ends between two children
            given += 1
            meter.given += 1
            yield child.document
        if given:
            self._failing = None
        else:
            self.drop(record, "empty", f"{self.name} made nothing of it")

    def drop(self, record: Record, reason: str, detail: str = "") -> None:
        """Logs that a record leaves the run here."""
        self.meter.dropped[reason] += 1
        self.stat_update("dropped", f"dropped_{reason}")
        row = {"step": self.step, "block": self.name, "reason": reason, "detail": detail, "record": dict(record)}
        self._log("dropped", record.id, row)

    def discard(self, record: Record, reason: str, detail: str = "") -> None:
        """Logs that a piece of the record is left out while the record itself goes on."""
        self.meter.discarded[reason] += 1
        self._log("discarded", record.id, {"step": self.step, "block": self.name, "reason": reason, "detail": detail})

    @property
    def meter(self) -> Meter:
        if self.context is not None:
            return self.context.meter(self.step, self.position, self.name)
        return self.__dict__.setdefault("_own_meter", Meter())  # type: ignore[no-any-return]

    @property
    def live(self) -> RunContext:
        """The open context of the run.

        Raises:
            AutoIFError: the block was not put into a recipe.
        """
        if self.context is None:
            raise AutoIFError(f"{type(self).__name__} needs a run: put it into a recipe")
        return self.context

    _failing: int | None = 0

    def _reason(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, DropRecord):
            self._failing = None
            return error.reason, error.detail
        if isinstance(error, AutoIFError):
            raise error
        said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        detail = f"{type(error).__name__}: {said}"[:1000]
        if self._failing is not None:
            self._failing += 1
            if self._failing >= BROKEN_AFTER:
                raise StopRun(
                    f"step '{self.step}': {self.name} failed on each of its first {BROKEN_AFTER} records: {detail}"
                ) from error
        return "error", detail

    def _log(self, folder: str, record_id: str, row: Mapping[str, Any]) -> None:
        if self.context is None:
            return
        file = f"{folder}/{self.step}.jsonl"
        try:
            self.context.write(file, {"id": record_id, **row})
        except (TypeError, ValueError, RecursionError):  # the log must take what the step's own file could not
            self.context.write(file, {"id": record_id, **row, "record": reprlib.repr(row.get("record"))})


class AsyncBlock(Block):
    """A block that waits for something (a model, a process), with many records in flight at once."""

    window = 256
    """records in flight or waiting to be taken; memory is bounded by this, not by the data"""

    def width(self) -> int:
        """The window of this run."""
        return self.window

    async def handle_async(self, record: Record) -> Iterable[Record]:
        """As `handle`, on the run's event loop."""
        raise NotImplementedError

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document, result in stream(data or (), self._work, self.live, self.width()):
            yield from self.deliver(Record(document), result)

    async def _work(self, document: Document) -> list[Record] | Exception:
        meter = self.meter
        meter.taken += 1
        try:
            return list(await self.handle_async(Record(document)))
        except Exception as error:
            return error
        finally:
            meter.worked += 1
