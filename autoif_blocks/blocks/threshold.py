"""Thresholds as people write them: `"> 0.5"`, `">= 8"`, `"< 3"`; a bare number means "at least"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_FORM = re.compile(r"\A\s*(>=|<=|==|!=|>|<)?\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\Z")


class Threshold:
    """A comparison with a number.

    Raises:
        ValueError: the text is no comparison.
    """

    def __init__(self, text: str | int | float) -> None:
        match = _FORM.match(str(text)) if not isinstance(text, bool) else None
        if match is None:
            raise ValueError(f'a threshold is a comparison like "> 0.5" or ">= 8", got \'{text}\'')
        self.sign = match[1] or ">="
        self.number = float(match[2])

    def passes(self, value: float) -> bool:
        return _OPERATORS[self.sign](value, self.number)

    def __repr__(self) -> str:
        return f"{self.sign} {self.number:g}"
