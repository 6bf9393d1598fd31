"""Filters: which records stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from datatrove.data import Document

from ..languages import count_characters, count_words
from ..records import Record
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
