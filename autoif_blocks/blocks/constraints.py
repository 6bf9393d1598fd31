"""Prompts with several constraints: where they stand, in which turn they come, and whether an answer follows all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from datatrove.data import Document

from ..errors import DropRecord
from ..parsing import strip_reasoning
from ..prompts import Prompt
from ..records import Record, seeded_random
from ..sandbox import Outcome
from .base import Block
from .executors import Number, told
from .functions import check_most, functions_of, share, texts_of, weights_of
from .kinds import Executor, Generator
from .threshold import Threshold

_BOUNDARY = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


class PlaceConstraints(Block):
    """Writes what the user says, turn by turn: the query, and a line for each constraint before, after or inside it.

    `inside` is between two of the query's sentences; a query of one sentence stands between its constraints. Where a
    placement and a later turn are drawn, they follow from the record's content and the recipe's seed. `turns` has the
    user's texts; each of the `constraints` gets the number of the `turn`, from 0, in which it comes.

    Args:
        placements: which ways there are.
        later: the share of records, 0 to 1, whose last constraint comes in a second turn, about the first answer.
        later_text: a template for what the user says then; `constraints` are the lines.
    """

    reads = ("query", "constraints")
    writes = ("turns", "constraints")

    def __init__(
        self,
        placements: list[Literal["before", "after", "inside"]] | None = None,
        later: float = 0.25,
        later_text: str = "Rewrite your answer. All that I asked before still holds, and this too:\n{{ constraints }}",
    ) -> None:
        super().__init__()
        if not 0 <= later <= 1:
            raise ValueError(f"later must be in [0, 1], got {later}")
        if placements == []:
            raise ValueError("placements must name at least one, or be left out for all")
        self.placements = placements or ["before", "after", "inside"]
        self.later = later
        self.later_text = Prompt(later_text)
        if self.later_text.fields != {"constraints"}:
            raise ValueError("later_text must use {{ constraints }}, and nothing else: else nobody asks for them")

    def handle(self, record: Record) -> Iterable[Record]:
        draw = seeded_random("place", self.context.settings.seed if self.context else 0, record.id)
        constraints = record["constraints"]
        placement = draw.choice(self.placements)
        first = len(constraints) - (len(constraints) > 1 and draw.random() < self.later)
        lines = [constraint["instruction"] for constraint in constraints]
        turns = [_placed(record["query"], lines[:first], placement)]
        if first < len(lines):
            turns.append(self.later_text.render({"constraints": "\n".join(lines[first:])}))
        numbered = [{**constraint, "turn": int(at >= first)} for at, constraint in enumerate(constraints)]
        return [record.with_(turns=turns, constraints=numbered)]


class Converse(Generator):
    """Has a conversation answered turn by turn, `n` times. What was said before is sent along as it was.

    The prompt is what the model is sent for a turn; `turn` is what the user says in it. The answers stay together, as
    `samples`, a list with the replies of each: only who has all of them can say that nobody follows a prompt.
    `verify_constraints` makes records of them.

    Args:
        together: false makes `n` records, each with its own `replies`; `response` is the last of them.
    """

    reads = ("turns",)
    supplies = ("turn",)
    needs = ("turn",)
    on_length = "discard"

    def __init__(self, prompt: str = "{{ turn }}", together: bool = True, **options: Any) -> None:
        super().__init__(prompt, **options)
        self.together = together
        self.writes = ("samples",) if together else ("replies", "response")

    async def attempt(self, record: Record, start: int) -> Iterable[Record]:
        said = await self.each(record, (self._sample(record, start + number) for number in range(self.n)))
        for _ in range(said.count(None)):
            self.discard(record, "empty_completion")
        whole = [replies for replies in said if replies is not None]
        if not whole:
            raise DropRecord("no_response", f"{self.n} conversations, all with an empty completion")
        return [record.with_(samples=whole)] if self.together else [_with_replies(record, each) for each in whole]

    async def _sample(self, record: Record, number: int) -> list[str] | None:
        history: list[dict[str, str]] = []
        for turn in record["turns"]:
            (completion,) = await self.ask(record, start=number, n=1, history=history, turn=turn)
            if not (reply := strip_reasoning(completion)):
                return None
            history += [{"role": "user", "content": turn}, {"role": "assistant", "content": reply}]
        return [message["content"] for message in history[1::2]]


class VerifyConstraints(Executor):
    """Runs the functions of all constraints on the replies: each reply must follow those of its turn and of all before.

    A constraint is followed if enough of its functions accept; one that crashes, hangs or returns nothing has not. If
    the constraint has `function_weights`, the share is that of the weight of the functions that accept. `pass_rates`
    has the lowest share of each constraint over the replies.

    Of a prompt's `samples` each that follows all becomes a record, with its `replies` and the last of them as
    `response`; the others are dropped one by one, as `failed_verification`. If none does, the prompt itself is
    dropped, as `never_followed`.

    Args:
        pass_rate: the share of a constraint's functions that must accept, as a threshold.
        max_functions: run only so many of a constraint's functions, the most accurate first; null runs all.
        together: false for records that have one conversation each, its `replies`.
    """

    def __init__(self, pass_rate: Number = "> 0.5", max_functions: int | None = None, together: bool = True) -> None:
        super().__init__()
        self.pass_rate = Threshold(pass_rate)
        self.max_functions = check_most(max_functions)
        self.together = together
        self.reads = ("constraints", "samples" if together else "replies")
        self.writes = (*(("replies", "response") if together else ()), "pass_rates", "constraint_verdicts")

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return (before - {"samples"} if self.together else before) | frozenset(self.writes)

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        return [
            (function, replies[constraint.get("turn", 0) :])
            for replies in self._samples(record)
            for constraint in record["constraints"]
            for function in functions_of(constraint)[: self.max_functions]
        ]

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        left = iter(runs)
        found = [(replies, *self._look(record, left)) for replies in self._samples(record)]
        if not self.together:
            ((_, failed, evidence),) = found
            if failed:
                raise DropRecord("failed_verification", failed, **evidence)
            return [record.with_(**evidence)]
        if all(failed for _, failed, _ in found):
            verdicts = {
                name: [evidence[name] for _, _, evidence in found] for name in ("pass_rates", "constraint_verdicts")
            }
            told = f"none of {len(found)} samples follows all {len(record['constraints'])} constraints; the first: "
            raise DropRecord("never_followed", told + next((failed for _, failed, _ in found), "none"), **verdicts)
        prompt = record.only(**{name: value for name, value in record.items() if name != "samples"})
        made = [(_with_replies(prompt, replies).with_(**evidence), failed) for replies, failed, evidence in found]
        return [_Failed(one, failed) if failed else one for one, failed in made]

    def deliver(self, record: Record, children: Iterable[Record] | Exception) -> Iterator[Document]:
        if not isinstance(children, Exception):
            children = list(children)
            for lost in children:
                if isinstance(lost, _Failed):
                    self.meter.created += 1
                    self.drop(lost, "failed_verification", lost.detail)
            children = [child for child in children if not isinstance(child, _Failed)]
        yield from super().deliver(record, children)

    def _samples(self, record: Record) -> list[list[str]]:
        return record["samples"] if self.together else [texts_of(record, "replies")]

    def _look(self, record: Record, runs: Iterator[list[Outcome]]) -> tuple[str, dict[str, Any]]:
        """What of a conversation does not follow its constraints, nothing if all of it does; and the evidence."""
        rates, verdicts, failed = [], [], []
        for constraint in record["constraints"]:
            asked = [next(runs) for _ in constraint["functions"][: self.max_functions]]
            weights = weights_of(constraint, "function_weights" if "function_weights" in constraint else None)
            shares = [share([o.verdict is True for o in reply], weights) for reply in zip(*asked, strict=True)]
            rates.append(round(min(shares, default=0.0), 4))
            verdicts.append([[told(outcome) for outcome in run] for run in asked])
            if not shares or not all(map(self.pass_rate.passes, shares)):
                failed.append(constraint["instruction"])
        detail = f"{len(failed)} of {len(rates)} not followed: {' | '.join(failed)}"[:500]
        return detail if failed or not rates else "", {"pass_rates": rates, "constraint_verdicts": verdicts}


class _Failed(Record):
    """A sample that does not follow its constraints; `detail` says which."""

    __slots__ = ("detail",)

    def __init__(self, record: Record, detail: str) -> None:
        super().__init__(record.document)
        self.detail = detail


def _with_replies(record: Record, replies: list[str]) -> Record:
    return record.child("replies", *replies, replies=replies, response=replies[-1])


def _placed(query: str, lines: Sequence[str], placement: str) -> str:
    ends = [match.end() for match in _BOUNDARY.finditer(query) if match.end() < len(query)]
    if placement == "inside" and ends:
        middle = ends[(len(ends) - 1) // 2]
        parts = [query[:middle].rstrip(), *lines, query[middle:]]
    else:
        before = {"before": len(lines), "after": 0}.get(placement, len(lines) // 2)
        parts = [*lines[:before], query, *lines[before:]]
    return "\n".join(parts)
