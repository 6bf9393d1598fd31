"""Preference pairs: prompts, several responses to each, how many functions accept them, and pairs of them.

A prompt is one record from beginning to end, with its responses as a list: a pair needs all of them, and so it is made
where the record is, however many tasks there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import DropRecord
from ..records import Record, seeded_random
from ..sandbox import Outcome
from .base import Block
from .executors import Number, told
from .functions import cases_of, check_most, functions_of, share, texts_of, weights_of
from .generators import Respond
from .kinds import Executor
from .queries import JoinQueries
from .threshold import Threshold

_Rated = tuple[str, float]
_Pair = tuple[_Rated, _Rated]
_GROUP = ("responses", "pass_rates", "response_verdicts")


class JoinPrompts(JoinQueries):
    """Makes prompts of each record: with queries, as `join_queries` does, and the instruction alone.

    The instruction alone has an empty `query`, and the inputs of its test cases are its `responses`: they are written
    already, so nobody is asked for them. A record without test cases gets prompts with queries only.

    Args:
        cases: the field that holds the test cases.
    """

    def __init__(self, path: str, cases: str = "cases", **options: Any) -> None:
        super().__init__(path, **options)
        self.cases = cases
        self.reads = tuple(sorted({*self.reads, cases}))

    def handle(self, record: Record) -> Iterable[Record]:
        prompts = [*super().handle(record)]
        if inputs := list(dict.fromkeys(case["input"] for case in cases_of(record, self.cases))):
            alone = self.light(record).child("alone", query="", query_id="", responses=inputs)
            prompts.append(alone)
        return prompts


class SampleResponses(Respond):
    """Has each prompt answered `n` times; the responses stay together, in a list.

    A prompt that has responses already goes on as it is, and costs nothing.

    Args:
        field: the field that holds the list.
    """

    def __init__(self, prompt: str, field: str = "responses", n: int = 8, **options: Any) -> None:
        super().__init__(prompt, field=field, n=n, **options)

    async def handle_async(self, record: Record) -> Iterable[Record]:
        return [record] if record.get(self.field) else await super().handle_async(record)

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        answered = super().parse(completions, record)
        return [record.with_(**{self.field: [each[self.field] for each in answered]})]


class RateResponses(Executor):
    """Runs the record's functions on each of its responses; `pass_rates` has the share that accepts each of them.

    A function that crashes, hangs or returns nothing has not accepted. Where no function that weighs anything came to a
    verdict the pass rate is null: that says something of the functions, and nothing of the response.

    Args:
        field: the field that holds the responses.
        max_functions: run only so many, the most accurate first; null runs all.
        weights: a field with a number for each function, `mutation_scores` for example: the share is that of the
            weight of the functions that accept; null gives all functions the same.
    """

    writes = ("pass_rates", "response_verdicts")

    def __init__(self, field: str = "responses", max_functions: int | None = None, weights: str | None = None) -> None:
        super().__init__()
        self.field = field
        self.max_functions = check_most(max_functions)
        self.weights = weights
        self.reads = ("functions", field, *([weights] if weights else []))

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        responses = texts_of(record, self.field)
        return [(function, responses) for function in functions_of(record)[: self.max_functions]] if responses else []

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        if not runs:
            missing = "function" if record[self.field] else "response"
            raise DropRecord(f"no_{missing}", f"the record has no {missing}: there is nothing to run")
        columns = list(zip(*runs, strict=True))
        weights = weights_of(record, self.weights)
        rates = [_pass_rate(outcomes, weights) for outcomes in columns]
        return [record.with_(pass_rates=rates, response_verdicts=[[told(one) for one in column] for column in columns])]


def _pass_rate(outcomes: Sequence[Outcome], weights: Sequence[float] | None) -> float | None:
    if not share([outcome.verdict is not None for outcome in outcomes], weights):
        return None
    return round(share([outcome.verdict is True for outcome in outcomes], weights), 4)


class MakePairs(Block):
    """Makes pairs of a prompt's responses: one that the functions accept, and one that they reject (paper section 3.4).

    A prompt becomes up to `per_prompt` records, each with `chosen`, `rejected` and their pass rates. Which ones follows
    from the recipe's seed and the prompt's id alone; responses that were used less come first. Two responses that
    differ in white space only are one, and never a pair. `level` is `query`, or `instruction` for a prompt that is the
    instruction alone.

    Args:
        chosen: which pass rates make a response the better one of a pair, as a threshold.
        rejected: which make it the worse one.
        per_prompt: pairs of one prompt, at most.
    """

    reads = ("responses", "pass_rates")
    writes = ("chosen", "rejected", "chosen_pass_rate", "rejected_pass_rate", "level")

    def __init__(self, chosen: Number = "> 0.5", rejected: Number = "== 0", per_prompt: int = 1) -> None:
        super().__init__()
        if per_prompt < 1:
            raise ValueError(f"per_prompt must be at least 1, got {per_prompt}")
        self.chosen = Threshold(chosen)
        self.rejected = Threshold(rejected)
        self.per_prompt = per_prompt

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return (before - set(_GROUP)) | frozenset(self.writes)

    def handle(self, record: Record) -> Iterable[Record]:
        rated: dict[str, _Rated] = {}
        for text, rate in zip(record["responses"], record["pass_rates"], strict=True):
            if rate is not None:
                rated.setdefault(" ".join(text.split()), (text, rate))
        good = [response for response in rated.values() if self.chosen.passes(response[1])]
        bad = [response for response in rated.values() if self.rejected.passes(response[1])]
        self._need_both(record, good, bad)
        pairs = [(one, other) for one in good for other in bad if one[1] > other[1]]
        if not pairs:
            raise DropRecord("no_better_one", "no response has a higher pass rate than one that would be rejected")
        prompt = record.only(**{name: value for name, value in record.items() if name not in _GROUP})
        level = "query" if record.get("query") else "instruction"
        return [
            prompt.child(
                "pair", chosen, rejected, chosen=chosen, rejected=rejected,
                chosen_pass_rate=rate, rejected_pass_rate=rejected_rate, level=level,
            )
            for (chosen, rate), (rejected, rejected_rate) in self._draw(record, pairs)
        ]  # fmt: skip

    def _need_both(self, record: Record, good: Sequence[object], bad: Sequence[object]) -> None:
        if good and bad:
            return
        missing = "neither_side" if not good and not bad else "no_chosen" if not good else "no_rejected"
        rates = [rate for rate in record["pass_rates"] if rate is not None]
        span = f"from {min(rates):g} to {max(rates):g}" if rates else "unknown"
        wanted = " and ".join([f"{self.chosen}"] * (not good) + [f"{self.rejected}"] * (not bad))
        raise DropRecord(missing, f"pass rates of {len(record['responses'])} responses are {span}: none is {wanted}")

    def _draw(self, record: Record, pairs: list[_Pair]) -> list[_Pair]:
        seed = self.context.settings.seed if self.context else 0
        seeded_random("pairs", seed, record.id).shuffle(pairs)
        used: Counter[_Rated] = Counter()
        drawn: list[_Pair] = []
        while pairs and len(drawn) < self.per_prompt:
            pair = min(pairs, key=lambda pair: used[pair[0]] + used[pair[1]])
            pairs.remove(pair)
            drawn.append(pair)
            used.update(pair)
        return drawn
