"""Records: the fields that flow through a run, and where their ids come from.

A record *is* a datatrove `Document`: `Record` is a thin view on one, so that datatrove's own blocks and ours see the
same data. The fields live in `Document.metadata`; `Document.text` mirrors the one that the recipe names as its text.

An id is a hash of content: of the parent's id and what makes the child distinct. Two runs give a record the same id
whatever the order of arrival was, and two equal children of one parent collide on purpose. An id cannot be read
backwards, so a child also names those that it descends from, in the field `made_from`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from random import Random
from typing import Any

import orjson
from datatrove.data import Document

MADE_FROM = "made_from"
"""the field with the ids of the records that one descends from, the nearest last"""
SEEDS = "seeds"
"""the field of a new instruction with the ids of those that the model was shown"""
_to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_AS_A_ROW = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_APPEND_NEWLINE


def content_hash(*parts: object, size: int = 10) -> str:
    """Hex digest of `size` bytes of the parts, which are kept apart: ("ab", "c") and ("a", "bc") differ."""
    digest = blake2b(digest_size=size)
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def seeded_random(*parts: object) -> Random:
    """A random generator that depends on the parts alone: never on the order of arrival or on the process."""
    return Random(int(content_hash(*parts), 16))


def shard_of(record_id: str, shards: int) -> int:
    """The task, 0 to `shards` - 1, that a record belongs to: by its id, whoever wrote it where."""
    return int(content_hash(record_id), 16) % shards


class Record(Mapping[str, Any]):
    """One record: `record["query"]`, `record.get("score")`, `record.id`. `with_` and `child` make new ones."""

    __slots__ = ("document",)

    def __init__(self, document: Document) -> None:
        self.document = document

    @classmethod
    def new(cls, *distinct: object, **fields: Any) -> Record:
        """A record without a parent; `distinct` is what makes it itself, an instruction's text for example."""
        return cls(Document(text="", id=content_hash(*distinct), metadata=fields))

    @property
    def id(self) -> str:
        return str(self.document.id)

    def __getitem__(self, field: str) -> Any:
        try:
            return self.document.metadata[field]
        except KeyError:
            raise KeyError(f"record {self.id} has no field '{field}'; it has {', '.join(self) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.document.metadata)

    def __len__(self) -> int:
        return len(self.document.metadata)

    def __repr__(self) -> str:
        return f"Record({self.id}, {', '.join(self)})"

    def with_(self, **fields: Any) -> Record:
        """The same record (same id) with more or other fields."""
        return Record(Document(text=self.document.text, id=self.id, metadata={**self.document.metadata, **fields}))

    def only(self, **fields: Any) -> Record:
        """The same record (same id) with these fields and no others."""
        return Record(Document(text=self.document.text, id=self.id, metadata=fields))

    def child(self, *distinct: object, **fields: Any) -> Record:
        """A new record that inherits the fields; its id follows from this one's id and from `distinct`, or from the new
        fields if that is left out."""
        distinct = distinct or (repr(sorted(fields.items())),)
        earlier = self.get(MADE_FROM, [])
        made_from = [*earlier, self.id] if isinstance(earlier, list) else earlier  # somebody's own field of that name
        metadata = {**self.document.metadata, MADE_FROM: made_from, **fields}
        return Record(Document(text=self.document.text, id=content_hash(self.id, *distinct), metadata=metadata))


def compact_json(value: Any, sort_keys: bool = False) -> bytes:
    """JSON for machines: fast, without spaces. UTF-8, or where a lone surrogate forbids that, ASCII with escapes.

    Raises:
        TypeError: a value has no JSON form.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return json.dumps(value, sort_keys=sort_keys).encode()


def read_json(data: bytes | str) -> Any:
    """The inverse of `compact_json`; also reads what orjson finds too lenient, a lone surrogate's escape for example.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)


def to_line(row: Mapping[str, Any]) -> bytes:
    """One JSON line. A lone surrogate, which UTF-8 cannot hold, becomes `?`.

    Raises:
        TypeError: a value has no JSON form.
        ValueError: a number is NaN or infinite, or the structure is too deep or contains itself.
    """
    with suppress(TypeError):  # which also says that a number is large, or a text no UTF-8
        line = orjson.dumps(row, option=_AS_A_ROW)
        if b"null" not in line:  # what orjson makes of NaN
            return line
    try:
        text = _to_text(row)
    except RecursionError as error:
        raise ValueError("nested too deeply for JSON") from error
    return text.encode("utf-8", "replace") + b"\n"


def to_row(record: Record) -> dict[str, Any]:
    """The record as one flat JSON object, its id first."""
    return {"id": record.id, **{field: value for field, value in record.items() if field != "id"}}


def from_row(row: Mapping[str, Any]) -> Record:
    """The inverse of `to_row`.

    Raises:
        ValueError: the row has no text `id`.
    """
    if not isinstance(row.get("id"), str):
        raise ValueError("a record needs an 'id'")
    fields = {field: value for field, value in row.items() if field != "id"}
    return Record(Document(text="", id=row["id"], metadata=fields))
