"""Readers: where records come from. `read_lines` for plain text, `read_jsonl` for rows with fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document

from ..errors import StopRun
from ..parsing import find_lines
from ..records import MADE_FROM, Record, content_hash, from_row, shard_of
from .base import Block


class Reader(Block):
    """Brings records into the run, after passing on those that come."""

    kind = "reader"
    limit: int | None = None
    """read only so many records (`--limit`)"""

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        # In the middle of a recipe two kinds of records go on: they have in common what both have.
        return before & frozenset(self.writes) if before else frozenset(self.writes)

    def read(self) -> Iterable[Record]:
        """The records, each task all of them: sharding is done here, by id."""
        raise NotImplementedError(f"{type(self).__name__} must define read()")

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data or ():
            self.meter.taken += 1
            self.meter.given += 1
            yield document
        for record in islice(self.read(), self.limit):
            if self.context is not None and self.context.stopping:
                self.context.cut_short()
                return
            if world_size == 1 or shard_of(record.id, world_size) == rank:
                self._count_read()
                self.meter.given += 1
                yield record.document

    def _count_read(self) -> None:
        self.meter.created += 1


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, with their numbers from 1.

    Raises:
        ValueError: the file cannot be read, or a line is not UTF-8; the message names file and line.
    """
    try:
        with Path(path).open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason}): save the file as UTF-8") from error
                if line:
                    yield number, line
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def rows_of(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file, with their line numbers.

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not JSON ({error}): mend or delete the line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: a JSON object is needed, this is {line[:40]}")
        yield number, row


def problems_of(lines: Iterable[Any], path: str) -> list[str]:
    """What keeps a file from being read: its first error, or that it is empty."""
    try:
        return [] if sum(1 for _ in lines) else [f"{path} is empty: it needs at least one line"]
    except ValueError as error:
        return [str(error)]


class ReadLines(Reader):
    """Reads a text file: a record a line. Blank lines are skipped, a bullet or number before the text is taken off.

    Args:
        path: the file, relative to the recipe.
        field: the field that holds the line.
    """

    files = ("path",)

    def __init__(self, path: str, field: str = "instruction") -> None:
        super().__init__()
        self.path = path
        self.field = field
        self.writes = (field,)

    def check(self) -> Iterable[str]:
        return problems_of(numbered_lines(self.path), self.path)

    def read(self) -> Iterable[Record]:
        try:
            for number, line in numbered_lines(self.path):
                for text in find_lines(line) or [""]:
                    record = Record.new(self.field, text, **{self.field: text})
                    if text:
                        yield record
                    else:
                        self.discard(record, "blank", f"line {number}: {line}")
        except ValueError as error:
            raise StopRun(str(error)) from error


class _Rows(Reader):
    """Reads the rows of a JSONL file, in which each of `fields` must stand."""

    files = ("path",)

    def __init__(self, path: str, fields: list[str]) -> None:
        super().__init__()
        self.path = path
        self.fields = fields
        self.writes = tuple(fields)

    def check(self) -> Iterable[str]:
        return problems_of(self._records(), self.path)

    def read(self) -> Iterable[Record]:
        try:
            yield from self._records()
        except ValueError as error:
            raise StopRun(str(error)) from error

    def _records(self) -> Iterator[Record]:
        """Raises ValueError, which names the line, for a row that is none of these records."""
        raise NotImplementedError


class ReadJsonl(_Rows):
    """Reads a JSONL file: a record a line, its keys are the fields.

    Args:
        path: the file, relative to the recipe.
        fields: the fields that every line has; what else a line holds is kept too.
        id_field: a key whose value tells the records apart; left out, the whole line does.
    """

    def __init__(self, path: str, fields: list[str], id_field: str | None = None) -> None:
        super().__init__(path, fields)
        self.id_field = id_field

    def _records(self) -> Iterator[Record]:
        for number, row in rows_of(self.path):
            for field in [*self.fields, *([self.id_field] if self.id_field else [])]:
                if field not in row:
                    raise ValueError(f"{self.path}:{number}: no '{field}'; the line has {', '.join(row) or 'nothing'}")
            distinct = str(row[self.id_field]) if self.id_field else json.dumps(row, sort_keys=True)
            yield from_row({**row, "id": content_hash("row", distinct)})


class ReadRun(_Rows):
    """Reads a step's file of another run: its records, with their ids and those that they descend from.

    Args:
        path: the file, relative to the recipe: `output/backtranslator_filter.jsonl`, for example.
        fields: the fields to take; the others stay where they are.
    """

    def _records(self) -> Iterator[Record]:
        for number, row in rows_of(self.path):
            try:
                record = from_row(row)
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}; name a step's file of a run") from error
            if missing := [field for field in self.fields if field not in record]:
                has = ", ".join(record) or "nothing"
                raise ValueError(f"{self.path}:{number}: no '{missing[0]}'; the record has {has}")
            kept = (*self.fields, MADE_FROM)
            yield record.only(**{field: record[field] for field in kept if field in record})


class ReadStep(Reader):
    """Reads the file of an earlier step, ids and all: how a run or a stage begins in the middle of a recipe."""

    files = ("path",)

    def __init__(self, path: str, visible: bool = True) -> None:
        super().__init__()
        self.path = path
        self.visible = visible

    def _count_read(self) -> None:
        self.meter.taken += 1  # these records were made earlier: for this step they come in

    def read(self) -> Iterable[Record]:
        try:
            for number, row in rows_of(self.path):
                try:
                    yield from_row(row)
                except ValueError as error:
                    raise ValueError(f"{self.path}:{number}: {error}") from error
        except ValueError as error:
            raise StopRun(str(error)) from error
