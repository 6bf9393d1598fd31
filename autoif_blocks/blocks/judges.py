"""Scorers that ask a model: a label by majority of votes, a number on a scale."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from ..errors import DropRecord
from ..parsing import find_label, find_number, strip_reasoning
from ..records import Record
from .kinds import FINAL, Generator

KEPT = 1000  # characters of an answer that a record carries along; the cache has it whole


def words(completion: str) -> str:
    """What a judge said, without its reasoning, as records carry it."""
    said = strip_reasoning(completion)
    return said if len(said) <= KEPT else f"{said[:KEPT]}…"


class JudgeLabel(Generator):
    """Asks for one of several labels, `n` times, and keeps the majority.

    Every usable vote counts; of labels with equally many, the one that stands later in `labels` wins, so put the most
    cautious last. `<field>_votes` holds the counts, `<field>_answers` what the model said.

    Args:
        labels: what the model may answer.
        field: the field for the label, or for the list of labels with `over`.
        over: a field that holds a list: each of its items is judged, and the prompt knows it as `item`.
    """

    kind = "scorer"
    supplies = ("item",)

    def __init__(
        self,
        prompt: str,
        labels: list[str],
        field: str = "label",
        over: str | None = None,
        n: int = 1,
        reask: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(prompt, n=n, reask=reask, **options)
        if len(labels) < 2:
            raise ValueError(f"labels must be at least two, got {labels}")
        self.labels = labels
        self.field = field
        self.over = over
        self.writes = (field, f"{field}_votes", f"{field}_answers")
        if over is not None:
            self.reads = sorted({*self.reads, over})
            self.must_show(["item"])
        elif "item" in self.prompt.fields:
            raise ValueError("the prompt uses 'item', which only `over: <a field with a list>` gives it")

    async def handle_async(self, record: Record) -> Iterable[Record]:
        items = [{}] if self.over is None else [{"item": item} for item in self._listed(record[self.over])]
        if not items:
            raise DropRecord("nothing_to_judge", f"{self.over} is empty")
        votes = await asyncio.gather(*(self._vote(record, variables) for variables in items))
        found: dict[str, list[Any]] = {
            self.field: [self._winner(counts) for counts, _ in votes],
            f"{self.field}_votes": [dict(counts) for counts, _ in votes],
            f"{self.field}_answers": [said for _, said in votes],
        }
        return [record.with_(**{name: values[0] if self.over is None else values for name, values in found.items()})]

    def _listed(self, found: object) -> list[Any]:
        if not isinstance(found, list):
            raise TypeError(f"'{self.over}' must be a list, got {str(found)[:80]!r}")
        return found

    async def _vote(self, record: Record, variables: dict[str, Any]) -> tuple[Counter[str], list[str]]:
        votes: Counter[str] = Counter()
        said: list[str] = []
        for attempt in range(self.reask + 1):
            try:
                completions = await self.ask(record, start=attempt * self.n, **variables)
            except DropRecord as drop:
                if attempt == self.reask or drop.reason in FINAL:
                    raise
                self.discard(record, drop.reason, drop.detail)
                continue
            for completion in completions:
                said.append(words(completion))
                label = find_label(completion, self.labels)
                if label is None:
                    self.discard(record, "no_label", completion[:300])
                else:
                    votes[label] += 1
            if votes:
                return votes, said
        answers = {f"{self.field}_answers": said}
        raise DropRecord("no_label", f"no usable answer in {(self.reask + 1) * self.n} completions", **answers)

    def _winner(self, votes: Counter[str]) -> str:
        return max(self.labels, key=lambda label: (votes[label], self.labels.index(label)))


class JudgeScore(Generator):
    """Asks for a number on a scale; with `n` above 1 the mean of the usable answers counts.

    `<field>_answers` holds what the model said.

    Args:
        field: the field for the number.
        low, high: the ends of the scale; a number outside is no score.
        reask: how often to ask again when no answer holds a number.
    """

    kind = "scorer"

    def __init__(
        self, prompt: str, field: str = "score", low: float = 0, high: float = 10, reask: int = 2, **options: Any
    ) -> None:
        super().__init__(prompt, reask=reask, **options)
        if low >= high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self.field = field
        self.low = low
        self.high = high
        self.writes = (field, f"{field}_answers")

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        said = [words(completion) for completion in completions]
        found = [find_number(completion, self.low, self.high) for completion in completions]
        scores = [score for score in found if score is not None]
        if not scores:
            raise DropRecord("no_score", completions[-1][:300], **{f"{self.field}_answers": said})
        for completion, score in zip(completions, found, strict=True):
            if score is None:
                self.discard(record, "no_score", completion[:300])
        return [record.with_(**{self.field: round(fmean(scores), 4), f"{self.field}_answers": said})]
