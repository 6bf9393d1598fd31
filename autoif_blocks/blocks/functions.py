"""A record's functions and cases: read with care, as a file may hold anything; what belongs to each; how they vote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import compress
from typing import Any

from ..errors import DropRecord
from ..parsing import to_bool
from ..records import Record

# Fields of a record that hold a value for each of its functions: who leaves a function out leaves out its values, too.
ALONGSIDE = ("functions", "accuracies", "case_verdicts", "mutation_scores")
_MOST_WEIGHT = 1e9  # so that no sum of them is infinite


def check_most(max_functions: int | None) -> int | None:
    """The option `max_functions`, if it makes sense.

    Raises:
        ValueError: it does not.
    """
    if max_functions is not None and max_functions < 1:
        raise ValueError(f"max_functions must be at least 1, or null for all, got {max_functions}")
    return max_functions


def functions_of(record: Mapping[str, Any]) -> list[str]:
    """The functions of a record, or of one of its constraints.

    Raises:
        TypeError: it holds something else.
    """
    return texts_of(record, "functions")


def texts_of(record: Mapping[str, Any], field: str) -> list[str]:
    """A list of texts; one text is none: its characters would be run, or paid for, one by one.

    Raises:
        TypeError: the field holds something else.
    """
    found = record[field]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"'{field}' must be a list of texts, got {str(found)[:80]!r}")
    return found


def cases_of(record: Mapping[str, Any], field: str = "cases") -> list[dict[str, Any]]:
    """The cases of a record, their outputs as booleans.

    Raises:
        TypeError: it holds something else.
    """
    found = record[field]
    if not isinstance(found, list):
        raise TypeError(f"'{field}' must be a list of {{input, output}}, got {str(found)[:80]!r}")
    return [_case(case) for case in found]


def _case(case: object) -> dict[str, Any]:
    given: dict[str, Any] = case if isinstance(case, dict) else {}
    output = to_bool(given.get("output"))
    if not isinstance(given.get("input"), str) or output is None:
        raise TypeError(f"a case must be {{input: a text, output: true or false}}, got {str(case)[:80]!r}")
    return {**given, "output": output}


def only_functions(record: Record, kept: Sequence[int], **fields: Any) -> Record:
    """The record with these of its functions, by number and in this order, and what belongs to them."""
    count = len(record["functions"])
    lists = {name: values for name in ALONGSIDE if isinstance(values := record.get(name), list)}
    left = {name: [values[i] for i in kept] for name, values in lists.items() if len(values) == count}
    return record.with_(**{**left, **fields})


def weights_of(record: Mapping[str, Any], field: str | None) -> list[float] | None:
    """The weight of each function, if there is such a field.

    Raises:
        ValueError: it has not a number, at least 0, for each function.
    """
    if field is None:
        return None
    weights, count = record[field], len(record["functions"])
    if not isinstance(weights, list) or len(weights) != count:
        has = len(weights) if isinstance(weights, list) else "no"
        raise ValueError(f"{field} has {has} values for {count} functions")
    for weight in weights:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= _MOST_WEIGHT or math.isnan(weight):
            raise ValueError(f"{field} must be numbers from 0 to 1e9, got {str(weight)[:80]!r}")
    return weights


def share(accepted: Sequence[bool], weights: Sequence[float] | None) -> float:
    """The share of the votes that accept: the weight of the functions that do, of that of all. Without weights all
    weigh the same. `weights` may be those of more functions than have voted, whose are the first.

    Raises:
        DropRecord: no function weighs anything.
    """
    if weights is None:
        return sum(accepted) / len(accepted)
    votes = weights[: len(accepted)]
    if not any(votes):
        raise DropRecord("no_weight", f"none of the {len(accepted)} functions has a weight")
    return part(votes, accepted)


def part(weights: Sequence[float], chosen: Sequence[bool]) -> float:
    """The share that the chosen weights, of which not all are 0, have of all. It is reckoned with the numbers as they
    are written: 0.1 and 0.2 of 0.1, 0.2 and 0.3 are half. A sum of floats is a little more or less, by the version of
    Python, and half is where votes are decided."""
    exact = [Fraction(str(weight)) for weight in weights]
    return float(sum(compress(exact, chosen)) / sum(exact))
