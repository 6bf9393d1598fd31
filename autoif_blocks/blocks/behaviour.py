"""Behaviour: what an instruction's functions say of the texts of a pool; and duplicates by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from datatrove.data import Document

from ..records import Record, content_hash
from ..sandbox import Outcome
from ..streaming import stream
from .base import AsyncBlock
from .functions import cases_of, functions_of

_AT_ONCE = 100  # texts


class Comparing(AsyncBlock):
    """What blocks have in common that compare instructions by what their functions say.

    Args:
        also: fields with more texts than those of the cases, one or a list of them: `response`, for example.
        pool: texts in the pool. Each record gives as many as the others, cases that its functions are to accept and to
            refuse in turn, chosen by their content. With fewer than twice the records, not all bring one of each.
        max_functions: functions of a record that are asked, the most accurate first.
    """

    whole_set = True

    def __init__(self, also: list[str] | None = None, pool: int = 1000, max_functions: int = 3) -> None:
        super().__init__()
        for name, value in (("pool", pool), ("max_functions", max_functions)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.also = also or []
        self.pool = pool
        self.max_functions = max_functions
        self.reads = ("functions", "cases", *self.also)

    def taken(self, data: Iterable[Document] | None) -> list[Record]:
        """All records that can be compared, sorted by id; the others are dropped."""
        records: list[Record] = []
        for record in sorted(map(Record, data or ()), key=lambda record: record.id):
            self.meter.taken += 1
            try:
                self.look_at(record)
            except Exception as error:
                list(self.deliver(record, error))
            else:
                self._failing = None
                records.append(record)
        return records

    def look_at(self, record: Record) -> None:
        """Raises what is wrong with a record: by itself, for what is done to all of them at once fails for all."""
        functions_of(record)
        self.texts(record)

    def pool_of(self, records: Sequence[Record]) -> list[str]:
        """The texts that all are asked about."""
        return _spread([self.texts(record) for record in records], self.pool)

    def behaviours(self, records: Sequence[Record], texts: Sequence[str]) -> Iterator[tuple[Record, str]]:
        """Each record, in order, and a character for each text: accepted, refused, or `?` where no majority says so."""
        # All calls of one job share a time-out: a slow function shall not be cut off for the length of the pool.
        parts = [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]

        async def ask(record: Record) -> str:
            sandbox = await self.live.sandbox()
            functions = functions_of(record)[: self.max_functions]
            runs = await sandbox.execute_all([(function, part) for part in parts for function in functions])
            by_part = (runs[start : start + len(functions)] for start in range(0, len(runs), len(functions) or 1))
            return "".join(_majority(outcomes) for some in by_part for outcomes in zip(*some, strict=True))

        return stream(records, ask, self.live, self.width(), ordered=True)

    def texts(self, record: Record) -> list[str]:
        """What a record gives to the pool: texts to accept and to refuse in turn, then the others, by their content."""
        cases = [(case["input"], case["output"]) for case in cases_of(record)]
        sides = (_by_content(text for text, output in cases if output is side) for side in (True, False))
        turns = [text for pair in zip_longest(*sides) for text in pair if text is not None]
        others = (record[field] for field in self.also)
        more = [str(text) for value in others for text in (value if isinstance(value, list) else [value])]
        return list(dict.fromkeys([*turns, *_by_content(more)]))


class DedupFunctions(Comparing):
    """Leaves one of several instructions whose functions say the same of every text: they are one family.

    A record's behaviour is what the majority of its functions says of each text of a common pool: the inputs of all
    records' cases, and the texts in the fields of `also`. Records that agree on the pool are then asked about all texts
    of one another that the pool has no room for. Of a family the record with the smallest id stays. A record that
    accepts hardly any of the pool, or nearly all of it, has shown no behaviour, and stays: constant functions are no
    family.

    Args:
        evidence: a record must accept so many texts of the pool at least, and refuse as many, to be compared at all.
    """

    kind = "filter"

    def __init__(self, evidence: int = 3, **options: Any) -> None:
        super().__init__(**options)
        if evidence < 1:
            raise ValueError(f"evidence must be at least 1, got {evidence}")
        self.evidence = evidence

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        records = self.taken(data)
        pool = self.pool_of(records)
        alike: dict[str, list[Record]] = defaultdict(list)
        for record, said in self.behaviours(records, pool):
            shown = min(said.count("+"), said.count("-")) >= self.evidence
            alike[said if shown else record.id].append(record)
        for on_pool, group in alike.items():
            yield from self._firsts(group, on_pool, pool) if len(group) > 1 else self._keep(group[0])

    def _firsts(self, group: Sequence[Record], on_pool: str, pool: Sequence[str]) -> Iterator[Document]:
        """The first of each family among records that agree on the pool."""
        rest = sorted({text for record in group for text in self.texts(record)}.difference(pool))
        families: dict[str, str] = {}
        for record, said in self.behaviours(group, rest):
            if said not in families:
                families[said] = record.id
                yield from self._keep(record)
            else:
                verdicts = on_pool + said
                detail = f"of {families[said]}: the same {verdicts.count('+')} of {len(verdicts)} texts are accepted"
                self.drop(record, "same_behaviour", detail)

    def _keep(self, record: Record) -> Iterator[Document]:
        self.meter.given += 1
        yield record.document


def _by_content(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts), key=lambda text: content_hash("pool", text))


def _spread(given: Sequence[Sequence[str]], room: int) -> list[str]:
    """The first of each, then the second of each, and so on: as many as there is room for, whatever comes first."""
    pool: dict[str, None] = {}
    for turn in range(max(map(len, given), default=0)):
        for text in _by_content(texts[turn] for texts in given if turn < len(texts)):
            if len(pool) >= room:
                return list(pool)
            pool[text] = None
    return list(pool)


def _majority(outcomes: Sequence[Outcome]) -> str:
    accepted = sum(outcome.verdict is True for outcome in outcomes)
    refused = sum(outcome.verdict is False for outcome in outcomes)
    return "+" if 2 * accepted > len(outcomes) else "-" if 2 * refused > len(outcomes) else "?"
