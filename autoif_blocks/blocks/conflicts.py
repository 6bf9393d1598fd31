"""Which two instructions nobody can follow together, as far as their words tell: counts, case, letters, words, shape.

It reads English, and only what is plain. What it does not understand conflicts with nothing: functions decide then.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache

_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NUMBER = re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b")
_UNITS = (
    r"(words|sentences|paragraphs|characters|lines|(?:hyphen )?bullets|bullet points|steps|items|headings|"
    r"exclamation marks|question marks)"
)
_N = r"(\d+)"
# Of these a part of the text is meant, so what they say holds of the whole as a lower bound only.
_OF_A_PART = re.compile(
    r"\b(?:each|every|per|any|no (?:sentence|line|paragraph|word)|bold|italics?|capitals?|caps|capitali[sz]ed|"
    r"uppercase|letters?|parenthes\w*|quot\w+|that|which|times?|title|between them)\b"
)
_BETWEEN = re.compile(rf"\b(?:between|from)? ?{_N} (?:and|to|up to) {_N} {_UNITS}")
_EXACTLY = re.compile(rf"\bexactly {_N} {_UNITS}")
_LEAST = re.compile(
    rf"\b(?:at least|no fewer than|no less than|a minimum of|not fewer than) {_N} {_UNITS}"
    rf"|{_N} {_UNITS} or more|{_N} or more {_UNITS}"
)
_MOST = re.compile(
    rf"\b(?:at most|no more than|not more than|a maximum of|up to|not write more than|into|within) {_N} {_UNITS}"
    rf"|{_N} {_UNITS} or fewer|longer than {_N} {_UNITS}"
)
_QUOTED = re.compile(r"[\"'“‘`]([^\"'“”‘’`]{1,40})[\"'”’`]")
_NOT = re.compile(r"(?!\bnot? (?:fewer|less|more) than\b)\b(?:not|without|avoid|never|no|forbidden)\b|n't\b")
_FIRST = re.compile(r"^(?:please )?(?:start|begin|open)\b|\bfirst word\b")
_LAST = re.compile(r"^(?:please )?(?:end|finish|close)\b|\blast word\b")
_SHAPES = {
    "JSON": re.compile(r"\bjson\b"),
    "a code block": re.compile(r"\b(?:fenced?|backticks|code block)\b"),
    "quotation marks": re.compile(r"\b(?:entire|whole)\b.*\bquotation marks\b"),
    "tags": re.compile(r"<(\w+)>.*</\1>"),
}
_WHOLE = re.compile(r"\b(?:whole|entire|entirely|all|only|every|any|no|not|without)\b")
_LOWER = re.compile(r"\b(?:lower ?-?case|small letters)\b")
_UPPER = re.compile(r"\b(?:upper ?-?case|capitals?|all caps)\b")


@dataclass(frozen=True)
class Facts:
    """What an instruction plainly says."""

    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    """by unit, the least and the most of the whole text"""
    case: str = ""
    needs: frozenset[str] = frozenset()
    """words that must stand in the text"""
    shuns: frozenset[str] = frozenset()
    """words and single letters that must not"""
    only: dict[str, str] = field(default_factory=dict)
    """what can be one thing only: `first word`, `last word`, `shape` of the whole"""


@lru_cache(maxsize=65_536)
def facts(instruction: str) -> Facts:
    """The facts of an instruction; none where it is not understood."""
    text = _NUMBER.sub(lambda match: str(_NUMBERS.index(match[0])), " ".join(instruction.lower().split()))
    bounds: dict[str, tuple[float, float]] = {}
    for pattern, least, most in ((_BETWEEN, 0, 1), (_EXACTLY, 0, 0), (_LEAST, 0, None), (_MOST, None, 0)):
        if match := pattern.search(text):
            *numbers, unit = (group for group in match.groups() if group is not None)
            low = 0.0 if least is None else float(numbers[least])
            high = math.inf if most is None or _OF_A_PART.search(text) else float(numbers[most])
            bounds[re.sub("hyphen bullets|bullet points", "bullets", unit)] = (low, high)
            break
    case = _case(text)
    quoted = frozenset(_QUOTED.findall(text)) if re.search(r"\b(?:words?|letters?)\b", text) else frozenset()
    shuns = quoted if _NOT.search(text) else frozenset()
    only: dict[str, str] = {}
    if shape := next((name for name, pattern in _SHAPES.items() if pattern.search(text)), ""):
        only["shape"] = shape
    for place, pattern in (("first word", _FIRST), ("last word", _LAST)):
        if len(quoted) == 1 and not shuns and re.search(r"\bword\b", text) and pattern.search(text):
            only[place] = min(quoted)
    needs = frozenset(word for word in quoted - shuns if len(word) > 1)
    return Facts(bounds, case, needs, shuns, only)


def _case(text: str) -> str:
    lower, upper = bool(_LOWER.search(text)), bool(_UPPER.search(text))
    if lower == upper or (not _WHOLE.search(text) and not re.search(r"\bwords?\b", text)):
        return ""
    return "lower" if lower != bool(_NOT.search(text)) else "upper"  # no capital letters: lower case


def conflict(one: str, other: str) -> str | None:
    """Why nobody can follow both instructions, or None if their words do not tell."""
    first, second = facts(one), facts(other)
    for unit, (low, high) in first.bounds.items():
        least, most = second.bounds.get(unit, (0.0, math.inf))
        if low > most or least > high:
            return f"{unit}: {_range(low, high)} and {_range(least, most)}"
    for some, others in ((first, second), (second, first)):
        fewest = some.bounds.get("words", (0.0, 0.0))[0]
        room = others.bounds.get("characters", (0.0, math.inf))[1]
        if 2 * fewest - 1 > room:  # a word is a letter and a space at the least
            return f"{fewest:g} words do not fit into {room:g} characters"
        for word in sorted(some.needs):
            if hit := next((no for no in sorted(others.shuns) if no == word or (len(no) == 1 and no in word)), ""):
                return f"'{word}' is asked for, '{hit}' forbidden"
    for name in first.only.keys() & second.only.keys():
        if first.only[name] != second.only[name]:
            return f"{name}: {first.only[name]} and {second.only[name]}"
    if first.case and second.case and first.case != second.case:
        return f"{first.case} and {second.case} case"
    return None


def _range(low: float, high: float) -> str:
    return f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
