"""Which task a prompt asks for, decided from its text alone.

Users edit prompts, so no rule wants an exact sentence. The whole conversation is searched, case does not matter, and
the first rule that fits wins:

1. `label`: names all three of *entailment*, *neutral* and *contradiction*, or of *蕴含*, *中立* and *矛盾*.
2. `repair`: contains the code of a function `evaluate` and says *fix*, *repair*, *mend* or *debug* outside it.
3. `verify`: names a function `evaluate(` and *JSON*, outside the code if there is some.
4. `back_translate`: contains the code `def evaluate(`.
5. `judge`: says *rate*, *score* or *grade*, contains a number, and has a line that begins with `Response:` or
   `Answer:`, or speaks of a response or an answer on the same line.
6. `self_instruct`: asks to *write*, *generate*, *create*, *propose*, *list* or *come up with* *instructions*, and has
   no line that begins with `Query:`.
7. `respond`: has a line that begins with `Instruction:` or `Constraint:`, or a line that a family recognises.
8. `chat`: anything else.

Chinese prompts follow the same rules, with the words that stand beside the English ones below.

A labelled field is a line `Label: value`; stars and hashes around the label are ignored. Its value is the rest of the
line, or the lines after it if that is empty; the value of a response runs to the end of the prompt.
"""

from __future__ import annotations

import re
from typing import Literal

from .families import recognise

LABELS = (("entailment", "neutral", "contradiction"), ("蕴含", "中立", "矛盾"))
TaskName = Literal["label", "repair", "verify", "back_translate", "judge", "self_instruct", "respond", "chat"]

_FLAGS = re.IGNORECASE
_EVALUATE = re.compile(r"\bevaluate\s*\(", _FLAGS)
_DEF = re.compile(r"\bdef\s+evaluate\s*\(")
_BODY = re.compile(r"\bdef\s+evaluate\s*\([^\n]*:[ \t]*\n[ \t]+\S")
_REPAIR = re.compile(r"\b(?:fix|repair|mend|debug)\b|修复|改正|修正", _FLAGS)
_RATE = re.compile(r"\b(?:rate|rating|score|scores|grade)\b|评分|打分", _FLAGS)
_DIGIT = re.compile(r"\d")
_JUDGED = re.compile(
    r"^[*#\s]*(?:(?:response|answer)\W*:|回答[:：])|\b(?:rate|score|grade)\b[^\n]{0,80}\b(?:response|answer)\b",
    _FLAGS | re.MULTILINE,
)
_ASKS = re.compile(
    r"\b(?:write|generate|create|propose|list|produce|come up with)\b[^\n]{0,60}\b(?:instructions|constraints)\b"
    r"|(?:写出?|编写|列出|提出|想出)[^\n]{0,20}(?:指令|要求)",
    _FLAGS,
)
_QUERY = re.compile(r"^[*#\s]*(?:(?:query|question|user)\W*:|问题[:：])", _FLAGS | re.MULTILINE)
_FIELD = re.compile(r"(?m)^[*#>\- \t]*([A-Za-z\u4e00-\u9fff][\w \-]{0,30}?)\**[ \t]*[:：]\**[ \t]*(.*)$")
_FENCE = re.compile(r"^```\w*[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CODE_START = re.compile(r"(?m)^[ \t]*(?:import |from \w+ import|def |class |[A-Z_]+(?:, [A-Z_]+)* = )")
_COUNT = re.compile(
    r"\b(?:write|generate|create|propose|list|produce|come up with)\s+(?:\w+\s+)?(\d{1,3})\b|写出?\s*(\d{1,3})\s*条",
    _FLAGS,
)
_BULLET = re.compile(r"(?m)^\s*[-*]\s+(\S.*?)\s*$")
_RANGE = re.compile(
    r"\b(\d{1,3})\s*(?:to|and|-|–|\.\.)\s*(\d{1,3})\b|\b(\d{1,3})\s*(?:is|means|=)[^\n]*?\b(\d{1,3})\s*(?:is|means|=)",
    _FLAGS,
)

INSTRUCTION = ("instruction", "constraint", "the instruction", "instructions", "original instruction", "指令", "要求")
QUERY = ("query", "question", "user", "user query", "the query", "问题")
RESPONSE = ("response", "answer", "the response", "回答")


def task_of(text: str) -> TaskName:
    """The task of a conversation's text; the rules stand in the docstring of this module."""
    low = text.lower()
    if any(all(label in low for label in labels) for labels in LABELS):
        return "label"
    # A function that is to be explained may well import json.
    asked = text.replace(code_of(text), "") if _BODY.search(text) else text
    if asked != text and _REPAIR.search(asked):
        return "repair"
    if "json" in asked.lower() and _EVALUATE.search(asked):
        return "verify"
    if _DEF.search(text):
        return "back_translate"
    if _RATE.search(text) and _DIGIT.search(text) and _JUDGED.search(text):
        return "judge"
    if _ASKS.search(text) and not _QUERY.search(text):
        return "self_instruct"
    return "respond" if instruction_of(text) else "chat"


def fields(text: str) -> list[tuple[str, str, int]]:
    """All labelled fields in order: label in lower case, value, offset of the value."""
    return [(m[1].strip().lower(), m[2].strip(), m.start(2)) for m in _FIELD.finditer(text)]


def field_of(text: str, labels: tuple[str, ...]) -> str | None:
    """The value of the last field with one of the labels."""
    for label, value, start in reversed(fields(text)):
        if label in labels:
            return value or _next_line(text, start)
    return None


def _next_line(text: str, start: int) -> str:
    return next((line.strip() for line in text[start:].splitlines() if line.strip()), "")


def instruction_of(text: str) -> str | None:
    """The instruction that a prompt is about: the labelled one, else the last line that a family recognises."""
    labelled = field_of(text, INSTRUCTION)
    if labelled:
        return labelled
    lines = [line.strip() for line in text.splitlines() if 4 < len(line) < 300]
    return next((line for line in reversed(lines) if recognise(line)), None)


def query_of(text: str) -> str:
    """The query that a prompt wants answered: the labelled one, else all of the text."""
    return field_of(text, QUERY) or text


def response_of(text: str) -> str:
    """The response that is to be judged: everything after its label, else all of the text."""
    for label, _value, start in fields(text):
        if label in RESPONSE:
            return text[start:].strip()
    return text


def code_of(text: str) -> str:
    """The function in a prompt: the fenced block with `def evaluate(`, else all from the first line of code on."""
    for match in _FENCE.finditer(text):
        if _DEF.search(match[1]):
            return match[1]
    start = _CODE_START.search(text)
    return text[start.start() :] if start else text


def pair_of(text: str) -> tuple[str, str]:
    """The two instructions to compare: the last two labelled fields, else the last two recognised or longest lines."""
    values = [value for _label, value, _start in fields(text) if value]
    if len(values) < 2:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        values = [line for line in lines if recognise(line)] or lines
    return (values[-2], values[-1]) if len(values) > 1 else (text, "")


def demonstrations_of(text: str) -> list[str]:
    """The bullets of a prompt."""
    return _BULLET.findall(text)


def count_of(text: str) -> int:
    """How many instructions are asked for; 10 if the prompt does not say, never more than 50."""
    match = _COUNT.search(_BULLET.sub("", text))
    return max(1, min(50, int(match[1] or match[2]))) if match else 10


def range_of(text: str) -> tuple[int, int]:
    """The lowest and the highest score of a judge's prompt; 0 to 10 if it does not say."""
    match = _RANGE.search(text)
    if not match:
        return 0, 10
    low, high = (int(group) for group in match.groups() if group is not None)
    return (low, high) if low < high else (0, 10)
