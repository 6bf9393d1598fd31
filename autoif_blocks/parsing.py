"""What models write, read leniently: reasoning is cut off, JSON is found wherever it stands, numbers however dressed.

Nothing here raises on bad text: `None` (or an empty list) means "not there", and the block that asked names the reason.
Nothing here takes long on hostile text either: it is read on the event loop, where every request would wait for it.
"""

from __future__ import annotations

import ast
import json
import math
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

_THINK_TAG = r"(think|thinking|thought|reasoning)"
_THINK = re.compile(rf"\s*(?:<{_THINK_TAG}>|\[THINK\])", re.IGNORECASE)
_THINK_END = re.compile(rf"</{_THINK_TAG}>|\[/THINK\]", re.IGNORECASE)
_FENCE = re.compile(r"(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*\Z")
_BULLET = re.compile(r"(?:[-*•–+]|\(?\d{1,3}[.):]|\[\d{1,3}\])(?:\s+|\Z)|\d{1,3}[.)、](?=[^\W\d])|[•-](?=[^\W\d])")
_NUMBER = r"([+-]?\d++(?:[.,]\d++)?)(?!(?!分)[\w%]|[.,]\d|[-–]\d)"  # not part of a word, a longer number or a range
_NO_RANGE = r"(?!\s?(?:[-–]|to)\s?\d)"
_SCORES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # `Score: 8/10`, `**Score**: 9`, `"score": 7`, the number perhaps on the next line
        rf"(?:\b(?:score|rating|grade)\b|评分|得分|分数)[^\w\n]{{0,6}}?[:=：]\s{{0,3}}[*_`\"'(\[]{{0,3}}{_NUMBER}",
        # `the score is 8`, `I rate it 7`, but neither `the score out of 10` nor `score (0 to 10)`
        rf"\b(?:score|rating|grade|rate)\b(?:(?!out\s)[^\d+\-\n]){{0,40}}?{_NUMBER}{_NO_RANGE}",
        # `8/10`, `8 out of 10`
        r"(?<![\d.,/])([+-]?\d++(?:[.,]\d++)?)\s{0,3}(?:/|out\s+of)\s{0,3}\d",
        # a number alone
        rf"(?<!(?![一-鿿])[\w.,/-])(?<!out of ){_NUMBER}{_NO_RANGE}",
    )
]
_OPENING = re.compile(r"[{\[]")
_SCAN_LIMIT = 200_000  # characters of a completion that are searched for JSON amid prose,
_SCAN_TRIES = 200  # places where it may begin,
_SCAN_WORK = 1_000_000  # and characters read in all of those: hostile nesting must not cost quadratic time
_PYTHON_LIMIT = 50_000
_WARNINGS = threading.Lock()


def strip_reasoning(text: str) -> str:
    """The answer without the `<think>…</think>` before it; empty if the thinking was never closed."""
    begin = 0
    while opening := _THINK.match(text, begin):
        tag = f"</{opening[1]}>" if opening[1] else "[/THINK]"
        closing = re.compile(re.escape(tag), re.IGNORECASE).search(text, opening.end())
        if closing is None:
            return ""
        begin = closing.end()
    # Some chat templates put the opening tag into the prompt, so that only the closing one comes back.
    if begin == 0 and (closing := _THINK_END.search(text)):
        opened = f"<{closing[1]}" if closing[1] else "[THINK"
        if opened.casefold() not in text[: closing.start()].casefold():
            begin = closing.end()
    return text[begin:].strip()


def find_json(text: str) -> Iterator[Any]:
    """JSON objects and arrays in the text, fenced, bare or amid prose, the likeliest first.

    Raw line breaks within strings are accepted, and at last Python's spelling: 'single quotes', True, a final comma.
    """
    text = strip_reasoning(text)
    fenced = [body for tag, body in _fenced(text) if tag.casefold() in ("", "json", "json5", "jsonc")]
    candidates = [text, *fenced]
    whole = [value for value in map(_loads, candidates) if isinstance(value, (dict, list))]
    yield from whole or _scan(text[:_SCAN_LIMIT])
    if not whole:
        begin, end = text.find("{"), text.rfind("}") + 1
        for candidate in [*fenced, text[begin:end] if begin >= 0 else ""]:
            value = _python_literal(candidate.strip()) if candidate else None
            if isinstance(value, (dict, list)):
                yield value


def find_object(text: str, *keys: str) -> dict[str, Any] | None:
    """The first JSON object in the text that has all the keys, also if it stands inside an array."""
    for value in find_json(text):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and all(key in item for key in keys):
                return item
    return None


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:20]} is no number that JSON can hold")
    return value


_DECODER = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=_finite)


def _scan(text: str) -> Iterator[Any]:
    position = read = 0
    for _ in range(_SCAN_TRIES):
        if read > _SCAN_WORK or (match := _OPENING.search(text, position)) is None:
            return
        begin = match.start()
        try:
            value, position = _DECODER.raw_decode(text, begin)
            yield _whole_characters(value)
        except json.JSONDecodeError as error:
            read += max(0, error.pos - begin)
            position = begin + 1
        except (ValueError, RecursionError):
            position = begin + 1


def _loads(text: str) -> Any:
    try:
        return _whole_characters(_DECODER.decode(text.strip()))
    except (ValueError, RecursionError):
        return None


def _whole_characters(value: Any) -> Any:
    """The value with `?` for lone surrogates, which JSON can escape and no file and few servers take."""
    plain = json.dumps(value)
    if "\\ud" not in plain:
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class _JsonNames(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        names = {"true": True, "false": False, "null": None}
        return ast.Constant(names[node.id]) if node.id in names else node


def _python_literal(text: str) -> Any:
    """The value of a Python literal, as far as JSON has the like."""
    if len(text) > _PYTHON_LIMIT or text[:1] not in ("{", "["):
        return None
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval")
        return json.loads(json.dumps(ast.literal_eval(_JsonNames().visit(tree).body), allow_nan=False))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError):
        return None


def _fenced(text: str) -> list[tuple[str, str]]:
    """The fenced blocks, as (language, body). A last one that is never closed counts too: models forget that."""
    blocks: list[tuple[str, str]] = []
    fence = tag = ""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if not fence:
            if match := _FENCE.match(bare):
                fence, tag, lines = match[1], match[2], []
        elif bare.endswith(fence):
            blocks.append((tag, "".join(lines) + bare[: -len(fence)]))
            fence = ""
        else:
            lines.append(line)
    return [*blocks, (tag, "".join(lines))] if fence else blocks


def find_code(text: str) -> str:
    """The code of a completion: the longest fenced block, or the whole text where nothing is fenced."""
    text = strip_reasoning(text)
    blocks = [body for _, body in _fenced(text)]
    return max(blocks, key=len).strip("\n") if blocks else text


def compiles(code: str) -> bool:
    """Whether the code is Python. Compiling does not run it."""
    try:
        # Models write "\d" in plain strings. The warning is for their eyes, not for ours; as an error it would count.
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<function>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def defines(code: str, name: str) -> bool:
    """Whether code that compiles binds the name at its top level, also under an `if` or `try`."""
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: list[ast.AST] = list(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # nested deeper than the compiler minds
        return False
    for node in found:  # grows while it is walked
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
            found += ast.iter_child_nodes(node)
        targets = node.targets if isinstance(node, ast.Assign) else []
        if name in (getattr(node, "name", None), *(target.id for target in targets if isinstance(target, ast.Name))):
            return True
    return False


def repair_code(code: str) -> str | None:
    """Code as Python can compile it, or None. Sound code is returned untouched.

    Only what does not compile is repaired: fences around it are taken off, an indentation that all lines share is too,
    and what was escaped twice (`\\\\n` in JSON) is read once more. Replacing `\\n` everywhere would break the string
    literals of sound code.
    """
    if compiles(code):
        return code
    bare = find_code(code)
    for candidate in (bare, *map(textwrap.dedent, (code, bare)), *_unescaped(bare), *map(find_code, _unescaped(code))):
        if candidate != code and compiles(candidate):
            return candidate
    return None


def _unescaped(code: str) -> list[str]:
    again = [text for text in _loads(f'["{code}"]') or () if isinstance(text, str)]
    return [*again, code.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\\t", "\t")]


def find_lines(text: str) -> list[str]:
    """The items of a list, one a line, without bullets, numbers and emphasis; blank items are left out.

    Lines of prose around a bulleted list ("Here are ten:") are left out too.
    """
    lines = [line.strip() for line in strip_reasoning(text).splitlines()]
    bulleted = [line for line in lines if _BULLET.match(line)]
    items = (_BULLET.sub("", line, count=1) for line in bulleted or lines if not line.startswith("```"))
    return [item for item in map(unwrap, items) if any(map(str.isalnum, item))]


def unwrap(text: str) -> str:
    """The text without the quotes or the emphasis that stand around the whole of it."""
    while True:
        text = text.strip()
        for mark, end in (("**", "**"), ("*", "*"), ('"', '"'), ("“", "”")):
            inner = text[len(mark) : -len(end)]
            if text == mark + inner + end and inner and mark not in inner and end not in inner:
                text = inner
                break
        else:
            return text


def find_number(text: str, low: float, high: float) -> float | None:
    """The score in a judge's answer: `Score: 8/10`, `**Score: 9**`, `8`, `I give it 7.5 out of 10`; else None.

    What is labelled as score counts before what stands before "/10", then a number alone; the last of its kind wins,
    since judges reason first. A number outside [low, high] is no score.
    """
    text = strip_reasoning(text)
    for pattern in _SCORES:
        for match in reversed(pattern.findall(text)):
            if low <= (value := float(match.replace(",", "."))) <= high:
                return value
    return None


def find_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the answer names, whatever its case and dressing; None if it names none or several.

    Where several are named, the first or the last line counts if it names one alone. `not neutral` names nothing.
    """
    text = strip_reasoning(text).casefold()
    lines = [line for line in text.splitlines() if line.strip()]
    for part in [text, *lines[:1], *lines[-1:]]:
        named = [label for label in labels if _names(part, label)]
        if len(named) == 1:
            return named[0]
    return None


def _names(text: str, label: str) -> bool:
    word = re.escape(label.casefold())
    if not label.isascii():  # where words are not parted, a label has letters around it
        return re.search(rf"(?<!不)(?<!非)(?<!不是){word}", text) is not None
    return re.search(rf"(?<!\w)(?<!not )(?<!not an )(?<!not a )(?<!no )(?<!non-){word}(?!\w)", text) is not None


def to_bool(value: object) -> bool | None:
    """`true`, `"true"`, `"True"`, `1`, `"yes"`, `"pass"`, `"是"` and their opposites as a boolean; else None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    word = value.strip().strip("\"'.").casefold() if isinstance(value, str) else ""
    if word in ("true", "yes", "1", "pass", "passed", "真", "是"):
        return True
    return False if word in ("false", "no", "0", "fail", "failed", "假", "否") else None
