"""Repair: the model sees what its function gets wrong and fixes it once; the sandbox decides whether it has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DropRecord
from ..parsing import defines, find_code, find_object, repair_code
from ..records import Record
from ..sandbox import Outcome
from .executors import Number, told
from .functions import ALONGSIDE, cases_of, functions_of
from .kinds import FINAL, Generator
from .threshold import Threshold

Case = Mapping[str, Any]
_KNOWN = frozenset(ALONGSIDE) - {"functions"}


class RepairFunctions(Generator):
    """Has each function that fails on cases repaired, once, with those cases before the model's eyes.

    The functions run on the cases first, and the cases that enough functions agree with count. A function that gets one
    of those wrong is shown to the model as `function`, with `failures`, a list of {input, expected, got}. What comes
    back, code or a JSON object with `func`, runs on the same cases and takes the function's place if it gets more of
    them right. `repairs` holds {function, answer, failures} for each that was shown; `answer` is null where it stayed.
    What was known of each function, accuracies and scores, is known no longer, and does not go on.

    Args:
        case_agreement: the share of the functions that must agree with a case, as a threshold.
        max_failures: how many failing cases the prompt shows.
        reask: how often to ask again for a function when none came.
    """

    reads = ("functions", "cases")
    writes = ("functions", "repairs")
    supplies = ("function", "failures")
    needs = ("function",)
    on_length = "discard"

    def __init__(self, prompt: str, case_agreement: Number = "> 0.5", max_failures: int = 4, **options: Any) -> None:
        super().__init__(prompt, **options)
        if max_failures < 1:
            raise ValueError(f"max_failures must be at least 1, got {max_failures}")
        self.case_agreement = Threshold(case_agreement)
        self.max_failures = max_failures

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return (before - _KNOWN) | frozenset(self.writes)

    async def handle_async(self, record: Record) -> Iterable[Record]:
        functions, given = functions_of(record), cases_of(record)
        runs = await self._run(functions, given)
        agreed = self._agreed(given, runs)
        cases = [given[number] for number in agreed]
        failures = [_failures(cases, [run[number] for number in agreed]) for run in runs]
        shown = [i for i, failed in enumerate(failures) if failed]
        fixed = await asyncio.gather(*(self._fix(record, functions[i], failures[i], cases) for i in shown))
        answers = dict(zip(shown, fixed, strict=True))
        repairs = [{"function": functions[i], "answer": answers[i], "failures": failures[i]} for i in shown]
        left = dict.fromkeys(answers.get(i) or function for i, function in enumerate(functions))  # each only once
        others = {name: value for name, value in record.items() if name not in _KNOWN}
        return [record.only(**{**others, "functions": list(left), "repairs": repairs})]

    async def _run(self, functions: Sequence[str], cases: Sequence[Case]) -> list[list[Outcome]]:
        inputs = [case["input"] for case in cases]
        if not inputs:
            return [[] for _ in functions]
        return await (await self.live.sandbox()).execute_all([(function, inputs) for function in functions])

    def _agreed(self, cases: Sequence[Case], runs: list[list[Outcome]]) -> list[int]:
        """The numbers of the cases that enough of the functions that load agree with."""
        loaded = [run for run in runs if any(outcome != Outcome.LOAD_ERROR for outcome in run)]
        agreeing = [sum(run[i].verdict == case["output"] for run in loaded) for i, case in enumerate(cases)]
        return [i for i, count in enumerate(agreeing) if self.case_agreement.passes(count / max(1, len(loaded)))]

    async def _fix(
        self, record: Record, function: str, failures: list[dict[str, Any]], cases: Sequence[Case]
    ) -> str | None:
        """The model's function, if it is better."""
        answers: list[str] = []
        for attempt in range(self.reask + 1):
            try:
                completions = await self.ask(
                    record, attempt * self.n, function=function, failures=failures[: self.max_failures]
                )
            except DropRecord as drop:  # the function that was there is still there
                self.discard(record, drop.reason, drop.detail)
                if drop.reason in FINAL:
                    return None
                continue
            answers = [code for completion in completions if (code := self._code(completion, record)) is not None]
            if answers:
                break
        failing = [len(_failures(cases, run)) for run in await self._run(answers, cases)]
        best = min(range(len(answers)), key=failing.__getitem__, default=None)
        if best is None or failing[best] >= len(failures):
            for answer in answers:
                self.discard(record, "repair_no_better", answer[:500])
            return None
        return answers[best]

    def _code(self, completion: str, record: Record) -> str | None:
        answer = find_object(completion, "func")
        code = repair_code(str(answer["func"]) if answer else find_code(completion))
        if code is not None and defines(code, "evaluate"):
            return code
        self.discard(record, "does_not_compile" if code is None else "no_evaluate", completion[:500])
        return None


def _failures(cases: Sequence[Case], run: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {"input": case["input"], "expected": case["output"], "got": told(outcome)}
        for case, outcome in zip(cases, run, strict=True)
        if outcome.verdict != case["output"]
    ]
