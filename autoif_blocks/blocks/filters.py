"""Filters: which records stay."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from typing import Literal

from datatrove.data import Document

from ..errors import StopRun
from ..languages import count_characters, count_words
from ..records import Record, content_hash
from .base import Block
from .kinds import Filter
from .threshold import Threshold


class KeepWhere(Filter):
    """Keeps the records whose number passes a threshold.

    Args:
        field: the field that holds the number.
        value: the threshold, `"> 8"` or `">= 0.5"`; a bare number means "at least".
    """

    def __init__(self, field: str, value: str | int | float) -> None:
        super().__init__()
        self.field = field
        self.threshold = Threshold(value)
        self.reads = (field,)

    def reject(self, record: Record) -> tuple[str, str] | None:
        value = record[self.field]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{self.field}_not_a_number", repr(value)[:200]
        return None if self.threshold.passes(value) else (f"{self.field}_not_{self.threshold}", f"{value:g}")


class DropLabel(Filter):
    """Drops the records that carry a label.

    Args:
        field: the field that holds a label or a list of labels.
        label: the label to drop.
        when: `any` of the record's labels is it, the `majority`, or `all`.
    """

    def __init__(self, field: str, label: str, when: Literal["any", "majority", "all"] = "any") -> None:
        super().__init__()
        self.field = field
        self.label = label
        self.when = when
        self.reads = (field,)

    def reject(self, record: Record) -> tuple[str, str] | None:
        labels = record[self.field] if isinstance(record[self.field], list) else [record[self.field]]
        hits = sum(label == self.label for label in labels)
        needed = {"any": 1, "majority": len(labels) // 2 + 1, "all": max(1, len(labels))}[self.when]
        return (self.label, f"{hits} of {len(labels)}") if hits >= needed else None


class KeepLength(Filter):
    """Keeps the records whose text is neither too short nor too long.

    Args:
        field: the field that holds the text.
        min_chars, max_chars: the bounds, in characters as a reader sees them, both allowed.
        min_words, max_words: the bounds in words, both allowed; a Chinese or Japanese character counts as one.
    """

    def __init__(
        self,
        field: str = "response",
        min_chars: int = 0,
        max_chars: int = 1_000_000,
        min_words: int = 0,
        max_words: int = 1_000_000,
    ) -> None:
        super().__init__()
        for what, low, high in (("chars", min_chars, max_chars), ("words", min_words, max_words)):
            if not 0 <= low <= high:
                raise ValueError(f"min_{what} must be from 0 to max_{what}, got {low} and {high}")
        self.field = field
        self.min_chars = min_chars
        self.max_chars = max_chars
        self.min_words = min_words
        self.max_words = max_words
        self.reads = (field,)

    def reject(self, record: Record) -> tuple[str, str] | None:
        characters, words = count_characters(record[self.field]), count_words(record[self.field])
        if characters < self.min_chars or words < self.min_words:
            return "too_short", f"{characters} characters, {words} words"
        if characters > self.max_chars or words > self.max_words:
            return "too_long", f"{characters} characters, {words} words"
        return None


class Limit(Block):
    """Leaves the first records by id: what `--limit` puts behind the first step.

    Args:
        count: how many.
    """

    kind = "filter"
    whole_set = True

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        records = sorted(data or (), key=lambda document: str(document.id))
        self.meter.taken += len(records)
        for number, document in enumerate(records):
            if number < self.count:
                self.meter.given += 1
                yield document
            else:
                self.drop(Record(document), "limit", f"--limit {self.count}")


class Dedup(Block):
    """Leaves one of several equal records.

    Without `on`, records with one id are equal: they come from equal content, so the first is as good as any, and
    records flow on at once. With `on`, records that agree in those fields are equal whatever their ids; the one with
    the smallest id stays, which takes waiting for all records.

    Args:
        on: fields to compare; null compares ids.
    """

    kind = "filter"

    def __init__(self, on: list[str] | None = None) -> None:
        super().__init__()
        if on == []:
            raise ValueError("on must name at least one field, or be left out to compare ids")
        self.on = on
        self.reads = tuple(on or ())
        self.whole_set = on is not None

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        records: Iterable[Record] = self._take(data or ())
        if self.on is not None:
            records = sorted(records, key=lambda record: record.id)
        with contextlib.closing(_Firsts()) as firsts:
            for record in records:
                equal = record.id if self.on is None else content_hash(*(record[field] for field in self.on))
                if (first := firsts.of(equal, record.id)) is not None:
                    self.drop(record, "duplicate", f"of {first}")
                    continue
                self.meter.given += 1
                yield record.document

    def _take(self, data: Iterable[Document]) -> Iterator[Record]:
        for document in data:
            self.meter.taken += 1
            yield Record(document)


class _Firsts:
    """The first record of each that are equal; on disk once they are many, in a file that SQLite deletes."""

    def __init__(self) -> None:
        # Whoever closes a chain of generators may do it from another thread.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("PRAGMA journal_mode=OFF")
        self._table.execute("PRAGMA cache_size=-1000")
        self._table.execute("CREATE TABLE firsts (equal BLOB PRIMARY KEY, id BLOB) WITHOUT ROWID")

    def of(self, equal: str, record_id: str) -> str | None:
        """The id of the first that is equal to this one; None if this is the first."""
        try:
            key = equal.encode("utf-8", "surrogatepass")
            added = self._table.execute(
                "INSERT OR IGNORE INTO firsts VALUES (?, ?)", (key, record_id.encode("utf-8", "surrogatepass"))
            )
            if added.rowcount:
                return None
            found: bytes = self._table.execute("SELECT id FROM firsts WHERE equal = ?", (key,)).fetchone()[0]
            return found.decode("utf-8", "surrogatepass")
        except sqlite3.Error as error:
            raise StopRun(f"cannot keep the ids of records on disk, in {tempfile.gettempdir()}: {error}") from error

    def close(self) -> None:
        self._table.close()
