"""`join_queries`: puts each record to real queries, drawn by the record's own content."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datatrove.data import Document

from ..errors import StopRun
from ..languages import count_characters, detector
from ..records import Record, content_hash, seeded_random
from .base import Block
from .readers import problems_of, rows_of

# Labels of the language model that stand for a language of another code.
_SAME_LANGUAGE = {"wuu": "zh", "yue": "zh", "lzh": "zh", "zht": "zh", "nb": "no", "nn": "no"}


def query_of(row: Mapping[str, Any]) -> str:
    """The first thing that the user says in a row, in any of the layouts that data sets come in.

    Read are plain `query`, `text`, `prompt`, `instruction`, `question`; `dialogs` and `messages` with `role` and
    `content`; ShareGPT's `conversations` with `from` and `value`.

    Raises:
        ValueError: the row has no user's words.
    """
    for field in ("query", "text", "prompt", "question", "instruction"):
        if isinstance(row.get(field), str):
            return str(row[field])
    for field in ("dialogs", "dialog", "messages", "conversations", "conversation"):
        turns = row.get(field)
        for turn in turns if isinstance(turns, list) else []:
            if isinstance(turn, str):
                return turn
            if isinstance(turn, dict) and str(turn.get("role", turn.get("from"))).lower() in ("user", "human"):
                said = turn.get("content", turn.get("value"))
                if isinstance(said, str):
                    return said
    raise ValueError(
        f"no query: none of query, text, dialogs, messages, conversations holds one; it has {', '.join(row)}"
    )


class JoinQueries(Block):
    """Pairs each record with queries from a file: one record becomes `per_record` records, each with its query.

    Which queries a record gets follows from the recipe's seed and the record's id alone. Queries that are too short or
    long, in another language or repeated are left out; `discarded/` says which and why.

    Args:
        path: a JSONL file: `query` or `text`, or `dialogs`, `messages` or ShareGPT `conversations`.
        per_record: queries for each record; all of them if the file has fewer.
        keep: fields that the records carry along; null keeps all. What is multiplied by the queries should be light.
        min_chars, max_chars: bounds on a query's length, in characters as a reader sees them.
        languages: ISO 639-1 codes to keep; empty keeps all.
        language_confidence: how sure the language detector must be to reject a query, 0 to 1; short ones are hard.
    """

    kind = "join"
    files = ("path",)
    writes = ("query", "query_id")

    def __init__(
        self,
        path: str,
        per_record: int = 16,
        min_chars: int = 1,
        max_chars: int = 100_000,
        languages: list[str] | None = None,
        language_confidence: float = 0.9,
        keep: list[str] | None = None,
    ) -> None:
        super().__init__()
        if per_record < 1:
            raise ValueError(f"per_record must be at least 1, got {per_record}")
        if not 0 <= min_chars <= max_chars:
            raise ValueError(f"min_chars must be from 0 to max_chars, got {min_chars} and {max_chars}")
        if not 0 <= language_confidence <= 1:
            raise ValueError(f"language_confidence must be in [0, 1], got {language_confidence}")
        self.path = path
        self.per_record = per_record
        self.min_chars = min_chars
        self.max_chars = max_chars
        self.languages = languages or []
        self.language_confidence = language_confidence
        self.keep = keep
        self.reads = tuple(keep or ())

    def check(self) -> Iterable[str]:
        return problems_of(self._queries(), self.path)

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self._log_pool = rank == 0
        self._pool = self._usable()  # read before the first record is pulled: a bad file must not cost a request
        yield from super().run(data, rank, world_size)

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        kept = before if self.keep is None else frozenset(self.keep)
        return kept | frozenset(self.writes)

    def light(self, record: Record) -> Record:
        """The record with what it carries along."""
        return record if self.keep is None else record.only(**{field: record[field] for field in self.keep})

    def handle(self, record: Record) -> Iterable[Record]:
        record = self.light(record)
        seed = self.context.settings.seed if self.context else 0
        chosen = seeded_random("queries", seed, record.id).sample(self._pool, min(self.per_record, len(self._pool)))
        return [record.child("query", query_id, query=query, query_id=query_id) for query_id, query in chosen]

    def _queries(self) -> Iterator[str]:
        for number, row in rows_of(self.path):
            try:
                yield query_of(row).strip()
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from error

    def _usable(self) -> list[tuple[str, str]]:
        pool: dict[str, str] = {}
        try:
            for query in self._queries():
                query_id = content_hash("query", query)
                reason = "duplicate" if query_id in pool else self._unfit(query)
                if not reason:
                    pool[query_id] = query
                elif self._log_pool:
                    self.discard(Record.new("query", query), f"query_{reason}", query[:200])
        except ValueError as error:
            raise StopRun(str(error)) from error
        if not pool:
            raise StopRun(f"{self.path}: no query is left by min_chars, max_chars and languages")
        return sorted(pool.items())  # in an order that the file's own does not change

    def _unfit(self, query: str) -> str | None:
        length = count_characters(query)
        if length < self.min_chars:
            return "too_short"
        if length > self.max_chars:
            return "too_long"
        return "other_language" if self.languages and self._is_foreign(query) else None

    def _is_foreign(self, query: str) -> bool:
        ranked: list[tuple[str, float]] = detector().rank(query)
        wanted = math.fsum(share for code, share in ranked if _SAME_LANGUAGE.get(code, code) in self.languages)
        return wanted < 1 - self.language_confidence

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pool"}
