"""Executors: functions and cases check one another, then the functions check responses (paper sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import DropRecord
from ..records import Record
from ..sandbox import Outcome
from .functions import cases_of, check_most, functions_of, only_functions, share, weights_of
from .kinds import Executor
from .threshold import Threshold

Number = str | int | float


def told(outcome: Outcome) -> bool | str:
    """An outcome as step files show it: the verdict, or what there was instead of one, `timeout` for example."""
    return outcome.name.lower() if outcome.verdict is None else outcome.verdict


class CrossValidate(Executor):
    """Runs every function on every case; keeps the cases that functions agree with and the functions that are right.

    Args:
        min_functions, min_cases: how many of each an instruction must bring.
        case_agreement: the share of the functions that must agree with a case, as a threshold.
        function_accuracy: the share of the cases kept that a function must get right, as a threshold.
        keep_functions, keep_cases: how many of each must be left.
    """

    reads = ("functions", "cases")
    writes = ("functions", "cases", "accuracies", "case_verdicts")

    def __init__(
        self,
        min_functions: int = 1,
        min_cases: int = 1,
        case_agreement: Number = "> 0.5",
        function_accuracy: Number = "> 0.5",
        keep_functions: int = 1,
        keep_cases: int = 1,
    ) -> None:
        super().__init__()
        self.min_functions = min_functions
        self.min_cases = min_cases
        self.case_agreement = Threshold(case_agreement)
        self.function_accuracy = Threshold(function_accuracy)
        self.keep_functions = max(1, keep_functions)
        self.keep_cases = max(1, keep_cases)

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        inputs = [case["input"] for case in cases_of(record)]
        # Nothing to learn without a case; `judge` drops the record for it.
        return [(function, inputs) for function in functions_of(record)] if inputs else []

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        cases, functions = cases_of(record), functions_of(record)
        verdicts = [[told(outcome) for outcome in run] for run in runs]
        loaded = [i for i, run in enumerate(runs) if any(outcome != Outcome.LOAD_ERROR for outcome in run)]
        self._need("few_cases", cases, self.min_cases, "cases", verdicts)
        self._need("few_functions", loaded, self.min_functions, f"of {len(functions)} functions load", verdicts)
        agrees = [[runs[i][j].verdict == case["output"] for j, case in enumerate(cases)] for i in loaded]
        share = [sum(column) / len(loaded) for column in zip(*agrees, strict=True)]
        kept = [j for j in range(len(cases)) if self.case_agreement.passes(share[j])]
        agreed = f"of {len(cases)} cases have agreement {self.case_agreement}"
        self._need("no_case_agreed", kept, self.keep_cases, agreed, verdicts)
        accuracy = {i: sum(row[j] for j in kept) / len(kept) for i, row in zip(loaded, agrees, strict=True)}
        right = sorted((i for i in loaded if self.function_accuracy.passes(accuracy[i])), key=lambda i: -accuracy[i])
        accurate = f"functions are accurate {self.function_accuracy}"
        self._need("no_function_accurate", right, self.keep_functions, accurate, verdicts)
        for j in sorted(set(range(len(cases))) - set(kept)):
            self.discard(record, "case_disagreed", f"agreement {share[j]:.2f}: {str(cases[j])[:300]}")
        for i in sorted(set(range(len(functions))) - set(right)):
            detail = f"accuracy {accuracy[i]:.2f}" if i in accuracy else "does not load"
            reason = "function_inaccurate" if i in accuracy else "load_error"
            self.discard(record, reason, f"{detail}: {functions[i][:300]}")
        return [
            only_functions(
                record,
                right,
                cases=[cases[j] for j in kept],
                accuracies=[round(accuracy[i], 4) for i in right],
                case_verdicts=[[verdicts[i][j] for j in kept] for i in right],
            )
        ]

    def _need(
        self, reason: str, found: Sequence[object], wanted: int, what: str, verdicts: list[list[bool | str]]
    ) -> None:
        if len(found) < wanted:
            raise DropRecord(reason, f"{len(found)} {what}, needed {wanted}", case_verdicts=verdicts)


class VerifyResponses(Executor):
    """Runs the record's functions on its response and keeps it by the share that accepts it.

    A function that crashes, hangs or returns nothing has not accepted.

    Args:
        pass_rate: the share of the functions that must accept the response, as a threshold.
        field: the field that holds the response.
        max_functions: run only so many, the most accurate first; null runs all.
        weights: a field with a number for each function, `mutation_scores` for example: the share is that of the
            weight of the functions that accept; null gives all functions the same.
    """

    writes = ("pass_rate", "verdicts")

    def __init__(
        self,
        pass_rate: Number = "> 0.5",
        field: str = "response",
        max_functions: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.pass_rate = Threshold(pass_rate)
        self.field = field
        self.max_functions = check_most(max_functions)
        self.weights = weights
        self.reads = ("functions", field, *([weights] if weights else []))

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        return [(function, [record[self.field]]) for function in functions_of(record)[: self.max_functions]]

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        if not runs:
            raise DropRecord("no_function", "the record has no function to check its response with")
        outcomes = [outcome for run in runs for outcome in run]
        passed = sum(outcome.verdict is True for outcome in outcomes)
        rate = share([outcome.verdict is True for outcome in outcomes], weights_of(record, self.weights))
        verdicts = [told(outcome) for outcome in outcomes]
        if not self.pass_rate.passes(rate):
            others = sorted({outcome.name for outcome in outcomes if outcome.verdict is None})
            detail = f"{passed} of {len(outcomes)} functions accept it" + (f" ({', '.join(others)})" if others else "")
            raise DropRecord("failed_verification", detail, pass_rate=round(rate, 4), verdicts=verdicts)
        return [record.with_(pass_rate=round(rate, 4), verdicts=verdicts)]
