"""A recipe's YAML as plain data that remembers where each value stands: lines, `${ENV}`.

Values are read as YAML 1.2 has them, so `no`, `on`, `12:30` and `2024-01-01` are words and `010` is ten. Tags, keys
that are no words, and whatever would take long to read are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import Problem, RecipeError

Where = tuple[str | int, ...]
_MAX_BYTES = 1_000_000
_MAX_VALUES = 20_000  # a recipe has hundreds; aliases of aliases could make billions
_MAX_DEPTH = 50
_MAX_NUMBER = 2**63

_ENV = re.compile(r"\$(\$?)\{([A-Za-z_]\w*)(?::-([^}]*))?\}")
_ENV_GONE_WRONG = re.compile(r"(?<!\$)\$\{[A-Za-z_][^{}]*\}?")
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_PLAIN: list[tuple[re.Pattern[str], Callable[[str], Any]]] = [
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]+(_[0-9]+)*"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9A-Fa-f]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: math.nan),
]

# PyYAML speaks of tokens; a user wants to know what to type. The first that fits counts; the line is that of PyYAML's
# problem, or of its context: where the quote or bracket opened.
_ADVICE: list[tuple[str, str, bool]] = [
    (r"found character '\\t'", "a tab cannot indent: use spaces", False),
    (r"that cannot start any token", "put a value that begins with this character in quotes", False),
    (r"mapping values are not allowed", "a ': ' where none can be: quote the value or mend the indentation", False),
    (r"could not find expected ':'", "a key without its ':'; or a text that needs quotes, or indentation", True),
    (r"found unexpected end of stream", "a quote that is never closed", True),
    (r"found unexpected document separator", "a quote that is never closed", True),
    (r"expected ',' or", "between brackets: one is not closed, a comma is left out, or a ${…} needs quotes", True),
    (r"expected <block end>", "this does not continue the line above: mend the indentation, or quote the value", False),
    (r"expected a comment or a line break", "put a value that begins with > or | in quotes", False),
    (r"found unknown escape", r"in double quotes a \ begins an escape: write \\, or use single quotes", False),
    (r"found another document", "a recipe is one document: delete the '---'", False),
    (r"found undefined alias", "no anchor '&' of that name stands above; quote a value that begins with *", False),
    (r"expected '<document start>'", "a recipe is a mapping: each line at its left edge begins with `key:`", False),
    (r"expected the node content", "a value is missing here", False),
]  # fmt: skip


class _Refused(yaml.MarkedYAMLError):
    """YAML, but not what a recipe may hold; `problem` says what and what to do."""


@dataclass
class Source:
    """The recipe's data and, for every value by its path, the line it stands on."""

    file: str
    folder: Path
    data: dict[str, Any]
    lines: dict[Where, int] = field(default_factory=dict)
    overridden: dict[Where, str] = field(default_factory=dict)
    """what `--set` has put in: its place in the data, and the path as it was typed"""
    unset: set[Where] = field(default_factory=set)
    """values that name an environment variable which is not set: one complaint is enough"""
    problems: list[Problem] = field(default_factory=list)

    def line(self, where: Where) -> int:
        """The line of a value, or of the nearest thing around it that has one."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def add(self, where: Where, step: str, message: str) -> None:
        """Notes a problem with the value at `where`."""
        if where in self.unset:
            return
        for place, typed in self.overridden.items():
            if where[: len(place)] == place or (place[: len(where)] == where and where not in self.lines):
                self.problems.append(
                    Problem(self.file, self.line(where) if step else 0, step, f"{message} (set by --set {typed})")
                )
                return
        self.problems.append(Problem(self.file, self.line(where), step, message))


def read(path: str | Path) -> Source:
    """The recipe at `path`.

    Raises:
        RecipeError: the file cannot be read or is not YAML; problems within it are in `Source.problems`.
    """
    file = str(path)
    source = Source(file, Path(), {})
    try:
        data = value_of(_text_of(path, file), source)
    except yaml.MarkedYAMLError as error:
        message, mark = explain(error)
        raise RecipeError([Problem(file, mark.line + 1 if mark else 0, "", message)]) from error
    if not isinstance(data, dict):
        what = "it is empty" if data is None else f"this is {'a list' if isinstance(data, list) else 'a single value'}"
        raise RecipeError([Problem(file, 1, "", f"a recipe is a mapping with at least 'steps': {what}")])
    source.data = data
    source.folder = Path(path).resolve().parent
    return source


def _text_of(path: str | Path, file: str) -> str:
    try:
        with Path(path).open("rb") as opened:
            raw = opened.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            message = f"a recipe has at most {_MAX_BYTES:,} bytes: put long prompts and data into files that it names"
            raise RecipeError([Problem(file, 0, "", message)])
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError([Problem(file, line, "", f"not UTF-8 ({error.reason}): save the file as UTF-8")]) from error
    except IsADirectoryError as error:
        raise RecipeError([Problem(file, 0, "", "this is a directory; name the recipe's .yaml file")]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError([Problem(file, 0, "", f"cannot read the recipe: {reason}")]) from error


def explain(error: yaml.MarkedYAMLError) -> tuple[str, yaml.Mark | None]:
    said = str(error.problem or error.context)
    mark = error.problem_mark or error.context_mark
    if isinstance(error, _Refused):
        return said, mark
    for form, advice, at_context in _ADVICE:
        if re.search(form, said):
            return f"not YAML: {advice}", (error.context_mark if at_context else None) or mark
    return f"not YAML: {said}", mark


def value_of(text: str, source: Source, where: Where = ()) -> Any:
    """The data of a YAML text, its lines and problems noted in the source.

    Raises:
        yaml.MarkedYAMLError: it is not YAML, or not a recipe's.
    """
    match = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if match is not None:
        mark = yaml.Mark("", 0, text.count("\n", 0, match.start()), 0, "", 0)
        raise _Refused(problem=f"the character {match[0]!r} cannot stand in a recipe: delete it", problem_mark=mark)
    loader = Loader(text)
    try:
        node = loader.get_single_node()
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF"
        problem = "an escape of a character that does not exist: mend what follows the \\"
        raise _Refused(problem=problem, problem_mark=loader.get_mark()) from error
    return _Builder(source).build(node, where) if node is not None else None


class Loader(yaml.BaseLoader):
    """Composes nodes that tell plain values from quoted ones by their tag, and stops at what is too much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return "plain" if kind is yaml.ScalarNode and implicit[0] else "quoted"

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._count += 1
        self._depth += 1
        if self._count > _MAX_VALUES or self._depth > _MAX_DEPTH:
            what = "more values than a recipe can need" if self._count > _MAX_VALUES else "nested too deeply"
            raise _Refused(problem=f"{what}: put data into a file", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Turns YAML nodes into data, noting lines; refuses what PyYAML lets pass in silence (a key given twice)."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, where: Where) -> Any:
        self._count += 1
        if id(node) in self._open or self._count > _MAX_VALUES:
            raise _Refused(problem="an alias that contains itself or explodes: write it out", problem_mark=_start(node))
        if node.tag not in ("plain", "quoted", "tag:yaml.org,2002:str"):
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise _Refused(problem=f"a recipe has no tags like '{name}': delete it", problem_mark=_start(node))
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, where)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*where, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, where)
        finally:
            self._open.discard(id(node))
            self._source.lines[where] = _start(node).line + 1

    def _mapping(self, node: yaml.Node, where: Where) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = _start(key).line + 1
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                advice = "a value that begins with { or [ needs quotes"
                raise _Refused(problem=f"a key must be a word; {advice}", problem_mark=_start(key))
            name = key.value
            if name in seen:
                message = f"'{name}' stands here and on line {seen[name]}: delete one"
                self._source.problems.append(Problem(self._source.file, line, "", message))
            seen[name] = line
            if name == "<<" and key.tag == "plain":
                merged = self._merged(value, where)
            else:
                own[name] = self.build(value, (*where, name))
                self._source.lines[(*where, name)] = line
        return {**merged, **own}

    def _merged(self, node: yaml.Node, where: Where) -> dict[str, Any]:
        """What `<<: *anchor` or `<<: [*first, *second]` stands for; of two, the first wins."""
        value = self.build(node, where)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise _Refused(problem="'<<' takes in a mapping, like `<<: *anchor`", problem_mark=_start(node))
        return {key: item for part in reversed(parts) for key, item in part.items()}

    def _scalar(self, node: yaml.ScalarNode, where: Where) -> Any:
        # Block scalars (`|`, `>`) are prompts and stay as they are; keys are resolved only when a request is sent.
        text = str(node.value)
        if node.style in ("|", ">"):
            if not text:
                raise _Refused(
                    problem=f"an empty block of text: put a value that begins with {node.style} in quotes",
                    problem_mark=_start(node),
                )
        elif where[-1:] != ("api_key",):
            if wrong := _ENV_GONE_WRONG.search(_ENV.sub("", text)):
                advice = "write ${NAME} or ${NAME:-default}; $${ stands for a plain ${"
                self._problem(node, f"'{wrong[0]}' names no variable: {advice}")
                self._source.unset.add(where)
            text = _ENV.sub(lambda match: self._variable(match, node, where), text)
        if wrong := UNWRITABLE.search(text):
            raise _Refused(problem=f"the character {wrong[0]!r} cannot stand in a value", problem_mark=_start(node))
        return self._plain(text, node) if node.tag == "plain" else text

    def _plain(self, text: str, node: yaml.ScalarNode) -> Any:
        for form, make in _PLAIN:
            if form.fullmatch(text):
                value = make(text) if len(text) < 1000 else math.nan
                if isinstance(value, (int, float)) and not abs(value) < _MAX_NUMBER:
                    self._problem(node, f"{text[:40]} is no number to count with: write a smaller one, or quote it")
                    return 0
                return value
        return text

    def _variable(self, match: re.Match[str], node: yaml.Node, where: Where) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match[0][1:]
        value = os.environ.get(name)
        if default is not None:
            return value or default  # as in a shell: what is set to nothing counts as not set
        if value is None:
            message = f"the environment variable {name} is not set: export it, or write ${{{name}:-default}}"
            self._problem(node, message)
            self._source.unset.add(where)
            return match[0]
        return value

    def _problem(self, node: yaml.Node, message: str) -> None:
        self._source.problems.append(Problem(self._source.file, _start(node).line + 1, "", message))


def _start(node: yaml.Node) -> yaml.Mark:
    assert node.start_mark is not None
    return node.start_mark
