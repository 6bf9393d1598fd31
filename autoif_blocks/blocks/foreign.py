"""datatrove's own blocks in a recipe: named by their dotted path, counted and logged like ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from ..records import Record
from .base import Block


class Foreign(Block):
    """Wraps a datatrove block. It sees one field as `Document.text`; what it does to that text goes back to the field.

    A document that goes in and does not come out is dropped, with the reason that the block gives if it is one of
    datatrove's filters.
    """

    kind = "datatrove"

    def __init__(self, inner: PipelineStep, text_field: str) -> None:
        super().__init__()
        self.inner = inner
        self.text_field = text_field
        self.name = type(inner).__name__
        self.reads = (text_field,)
        self.is_reader = "READER" in str(inner.type).upper()
        if self.is_reader:
            self.reads, self.writes = (), (text_field,)

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        inside: dict[int, Document] = {}
        rejected: deque[Document] = deque()
        if getattr(self.inner, "exclusion_writer", self) is None:
            self.inner.exclusion_writer = _Rejected(rejected)
        try:
            for document in self.inner.run(self._lend(data or (), inside), rank, world_size):
                self._settle(rejected, inside)
                if inside.pop(id(document), None) is None:
                    self.meter.created += 1  # a reader's, or a copy
                if document.text != document.metadata.get(self.text_field):
                    document.metadata[self.text_field] = document.text
                self.meter.given += 1
                yield document
        finally:
            if isinstance(getattr(self.inner, "exclusion_writer", None), _Rejected):
                self.inner.exclusion_writer = None
        self._settle(rejected, inside)
        for document in inside.values():
            self.drop(Record(document), "filtered", f"{self.name} did not pass it on")

    def _lend(self, data: Iterable[Document], inside: dict[int, Document]) -> Iterator[Document]:
        for document in data:
            self.meter.taken += 1
            if self.context is not None and self.context.overdue:
                self.context.cut_short()
                continue
            document.text = str(document.metadata.get(self.text_field, ""))
            inside[id(document)] = document
            yield document

    def _settle(self, rejected: deque[Document], inside: dict[int, Document]) -> None:
        while rejected:
            document = rejected.popleft()
            if inside.pop(id(document), None) is not None:
                reason = str(document.metadata.pop("filter_reason", "") or "filtered")
                self.drop(Record(document), reason, f"by {self.name}")


class _Rejected:
    """Stands where datatrove's filters expect a writer for what they reject."""

    def __init__(self, documents: deque[Document]) -> None:
        self._documents = documents

    def __enter__(self) -> _Rejected:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, document: Document, rank: int = 0, **_: Any) -> None:
        self._documents.append(document)
