"""What models write, read leniently: reasoning is cut off, JSON is found wherever it stands, numbers however dressed.

Nothing here raises on bad text: `None` (or an empty list) means "not there", and the block that asked names the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_THINK = re.compile(r"\A\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINK_TAIL = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_THINK_OPEN = re.compile(r"\A\s*<(?:think|thinking|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\r?\n(.*?)```", re.DOTALL)
_BULLET = re.compile(r"\A(?:[-*•+]|\(?\d{1,3}[.):]|\[\d{1,3}\])(?:\s+|\Z)")
# `9`, `8.5`, `8/10`, `**9**`, but not the 10 of "out of 10" and not a part of `v2.1`, a date or a longer number.
_NUMBER = re.compile(r"(?<![\w.,/-])([+-]?\d+(?:[.,]\d+)?)(?![\w%]|[.,]\d)")
_LABELLED = re.compile(
    r"\b(?:score|rating|grade|rate)\b[^\d+\-\n]{0,40}?([+-]?\d+(?:[.,]\d+)?)(?![\w%]|[.,]\d)", re.IGNORECASE
)
_OUT_OF = re.compile(r"([+-]?\d+(?:[.,]\d+)?)\s*(?:/|out\s+of)\s*\d+", re.IGNORECASE)
_OPENING = re.compile(r"[{\[]")
_SCAN_LIMIT = 200_000  # characters of a completion that are searched for JSON amid prose,
_SCAN_TRIES = 200  # and places tried: hostile nesting must not cost quadratic time


def strip_reasoning(text: str) -> str:
    """The answer without the `<think>…</think>` before it; empty if the thinking was never closed."""
    if match := _THINK.match(text):
        return strip_reasoning(text[match.end() :])
    if _THINK_OPEN.match(text):
        return ""
    # Some chat templates put the opening tag into the prompt, so that only the closing one comes back.
    if "<think" not in text.lower() and (match := _THINK_TAIL.match(text)):
        text = text[match.end() :]
    return text.strip()


def find_json(text: str) -> Iterator[Any]:
    """Every JSON object or array that stands in the text, fenced, bare or amid prose, the likeliest first.

    Raw line breaks within strings, which models like to write, are accepted.
    """
    text = strip_reasoning(text)
    candidates = [body for tag, body in _FENCE.findall(text) if tag.lower() in ("", "json", "json5", "jsonc")]
    for candidate in [text, *candidates]:
        value = _loads(candidate)
        if isinstance(value, (dict, list)):
            yield value
            return
    decoder = json.JSONDecoder(strict=False)
    position = 0
    scanned = text[:_SCAN_LIMIT]
    for _ in range(_SCAN_TRIES):
        if (match := _OPENING.search(scanned, position)) is None:
            return
        try:
            value, position = decoder.raw_decode(scanned, match.start())
            yield value
        except (ValueError, RecursionError):
            position = match.start() + 1


def find_object(text: str, *keys: str) -> dict[str, Any] | None:
    """The first JSON object in the text that has all the keys, also if it stands inside an array."""
    for value in find_json(text):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and all(key in item for key in keys):
                return item
    return None


def _loads(text: str) -> Any:
    try:
        return json.loads(text.strip(), strict=False)
    except (ValueError, RecursionError):
        return None


def find_code(text: str) -> str:
    """The code of a completion: the longest fenced block, or the whole text where nothing is fenced."""
    text = strip_reasoning(text)
    blocks = [body for _, body in _FENCE.findall(text)]
    return max(blocks, key=len).strip("\n") if blocks else text


def compiles(code: str) -> bool:
    """Whether the code is Python. Compiling does not run it."""
    try:
        compile(code, "<function>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def repair_code(code: str) -> str | None:
    """Code as Python can compile it, or None. Sound code is returned untouched.

    Only what does not compile is repaired: fences around it are taken off, and line breaks that were escaped twice
    (`\\\\n` in JSON) are put back. Replacing them everywhere would break the string literals of sound code.
    """
    if compiles(code):
        return code
    for candidate in (find_code(code), code.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\\t", "\t")):
        if candidate != code and compiles(candidate):
            return candidate
    return None


def find_lines(text: str) -> list[str]:
    """The items of a list, one a line, without bullets, numbers and emphasis; blank items are left out.

    Lines of prose around a bulleted list ("Here are ten:") are left out too.
    """
    lines = [line.strip() for line in strip_reasoning(text).splitlines()]
    bulleted = [line for line in lines if _BULLET.match(line)]
    items = (_BULLET.sub("", line, count=1) for line in bulleted or lines if not line.startswith("```"))
    return [item for item in (item.strip().strip("*").strip().strip('"“”').strip() for item in items) if item]


def find_number(text: str, low: float, high: float) -> float | None:
    """The score in a judge's answer: `Score: 8/10`, `**Score: 9**`, `8`, `I give it 7.5 out of 10`; else None.

    What is labelled as score counts before what stands before "/10", then a number alone; the last of its kind wins,
    since judges reason first. A number outside [low, high] is no score.
    """
    text = strip_reasoning(text)
    for pattern in (_LABELLED, _OUT_OF, _NUMBER):
        for match in reversed(pattern.findall(text)):
            if low <= (value := float(match.replace(",", "."))) <= high:
                return value
    return None


def find_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the answer names, whatever its case and dressing; None if it names none or several.

    A JSON answer and an answer of several words work; where several are named, the first line's or the last word's
    counts if it is alone there.
    """
    text = strip_reasoning(text).casefold()
    lines = [line for line in text.splitlines() if line.strip()]
    for part in [text, *lines[:1], *lines[-1:]]:
        named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label.casefold())}(?!\w)", part)]
        if len(named) == 1:
            return named[0]
    return None


def to_bool(value: object) -> bool | None:
    """`true`, `"true"`, `"True"`, `1`, `"yes"`, `"pass"` and their opposites as a boolean; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    word = value.strip().strip("\"'.").casefold() if isinstance(value, str) else ""
    if word in ("true", "yes", "1", "pass", "passed"):
        return True
    return False if word in ("false", "no", "0", "fail", "failed") else None
