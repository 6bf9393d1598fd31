"""Prompts with several constraints: where they stand, in which turn they come, and whether an answer follows all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ..errors import DropRecord
from ..parsing import strip_reasoning
from ..prompts import Prompt
from ..records import Record, seeded_random
from ..sandbox import Outcome
from .base import Block
from .executors import Number, told
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
        self.placements = placements or ["before", "after", "inside"]
        self.later = later
        self.later_text = Prompt(later_text)

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
    """Has a conversation answered turn by turn: `n` samples become `n` records, each with its own `replies`.

    The prompt is what the model is sent for a turn; `turn` is what the user says in it. What was said before is sent
    along as it was. `response` is the last reply.
    """

    reads = ("turns",)
    writes = ("replies", "response")
    supplies = ("turn",)
    on_length = "discard"

    def __init__(self, prompt: str = "{{ turn }}", **options: Any) -> None:
        super().__init__(prompt, **options)

    async def handle_async(self, record: Record) -> Iterable[Record]:
        said = await asyncio.gather(*(self._sample(record, number) for number in range(self.n)))
        for _ in range(said.count(None)):
            self.discard(record, "empty_completion")
        whole = [replies for replies in said if replies is not None]
        if not whole:
            raise DropRecord("no_response", f"{self.n} conversations, all with an empty completion")
        return [record.child("replies", *replies, replies=replies, response=replies[-1]) for replies in whole]

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

    A constraint is followed if enough of its functions accept; one that crashes, hangs or returns nothing has not.
    `pass_rates` has the lowest share of each constraint over the replies.

    Args:
        pass_rate: the share of a constraint's functions that must accept, as a threshold.
        max_functions: run only so many of a constraint's functions, the most accurate first; null runs all.
    """

    reads = ("constraints", "replies")
    writes = ("pass_rates", "constraint_verdicts")

    def __init__(self, pass_rate: Number = "> 0.5", max_functions: int | None = None) -> None:
        super().__init__()
        self.pass_rate = Threshold(pass_rate)
        self.max_functions = max_functions

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        return [
            (function, record["replies"][constraint.get("turn", 0) :])
            for constraint in record["constraints"]
            for function in constraint["functions"][: self.max_functions]
        ]

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        left = iter(runs)
        rates, verdicts, failed = [], [], []
        for constraint in record["constraints"]:
            asked = [next(left) for _ in constraint["functions"][: self.max_functions]]
            shares = [sum(o.verdict is True for o in reply) / len(reply) for reply in zip(*asked, strict=True)]
            rates.append(round(min(shares, default=0.0), 4))
            verdicts.append([[told(outcome) for outcome in run] for run in asked])
            if not shares or not all(map(self.pass_rate.passes, shares)):
                failed.append(constraint["instruction"])
        found = {"pass_rates": rates, "constraint_verdicts": verdicts}
        if failed or not rates:
            detail = f"{len(failed)} of {len(rates)} not followed: {' | '.join(failed)}"[:500]
            raise DropRecord("failed_verification", detail, **found)
        return [record.with_(**found)]


def _placed(query: str, lines: Sequence[str], placement: str) -> str:
    ends = [match.end() for match in _BOUNDARY.finditer(query) if match.end() < len(query)]
    if placement == "inside" and ends:
        middle = ends[(len(ends) - 1) // 2]
        parts = [query[:middle].rstrip(), *lines, query[middle:]]
    else:
        before = {"before": len(lines), "after": 0}.get(placement, len(lines) // 2)
        parts = [*lines[:before], query, *lines[before:]]
    return "\n".join(parts)
