"""A recipe's YAML as plain data that remembers where each value stands: lines, `${ENV}`, `--set`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import Problem, RecipeError

Where = tuple[str | int, ...]
_ENV = re.compile(r"\$(\$?)\{(\w+)(?::-([^}]*))?\}")
_MAX_VALUES = 100_000  # a recipe has hundreds; aliases of aliases could make billions


@dataclass
class Source:
    """The recipe's data and, for every value by its path, the line it stands on."""

    file: str
    folder: Path
    data: dict[str, Any]
    lines: dict[Where, int] = field(default_factory=dict)
    overridden: dict[Where, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, where: Where) -> int:
        """The line of a value, or of the nearest thing around it that has one."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def add(self, where: Where, step: str, message: str) -> None:
        """Notes a problem with the value at `where`."""
        for path in (where, where[:-1]):
            if path in self.overridden:
                message = f"{message} (set by --set {self.overridden[path]})"
                break
        self.problems.append(Problem(self.file, self.line(where), step, message))


def read(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """The recipe at `path` with the overrides `path.to.option=value` put in.

    Raises:
        RecipeError: the file cannot be read or is not YAML; problems within it are in `Source.problems`.
    """
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError([Problem(file, 0, "", f"not UTF-8 ({error.reason}): save the file as UTF-8")]) from error
    except IsADirectoryError as error:
        raise RecipeError([Problem(file, 0, "", "this is a directory; name the recipe's .yaml file")]) from error
    except OSError as error:
        raise RecipeError([Problem(file, 0, "", f"cannot read the recipe: {error.strerror}")]) from error
    loader = yaml.SafeLoader(text) if _printable(text, file) else None
    source = Source(file, Path(path).resolve().parent, {})
    try:
        assert loader is not None
        node = loader.get_single_node()
        data = _Builder(loader, source).build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not YAML: {error.problem or error.context}"
        raise RecipeError([Problem(file, mark.line + 1 if mark else 0, "", what)]) from error
    except RecursionError as error:
        raise RecipeError([Problem(file, 0, "", "nested too deeply for a recipe")]) from error
    if not isinstance(data, dict):
        raise RecipeError([Problem(file, 1, "", "a recipe is a mapping with at least 'steps'; this is not")])
    source.data = data
    for override in overrides:
        _override(source, override)
    return source


def _printable(text: str, file: str) -> bool:
    match = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if match is not None:
        line = text.count("\n", 0, match.start()) + 1
        raise RecipeError([Problem(file, line, "", f"character {match[0]!r} cannot stand in YAML: delete it")])
    return True


class _Builder:
    """Turns YAML nodes into data, noting lines; refuses what PyYAML lets pass in silence (a key given twice)."""

    def __init__(self, loader: yaml.SafeLoader, source: Source) -> None:
        self._loader = loader
        self._source = source
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, where: Where) -> Any:
        self._count += 1
        if id(node) in self._open or self._count > _MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem="an alias that contains itself or explodes", problem_mark=node.start_mark
            )
        self._source.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*where, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, where)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                message = f"'{key.value}' stands here and on line {seen[key.value]}: delete one"
                self._source.problems.append(Problem(self._source.file, line, "", message))
            seen[str(key.value)] = line
        self._loader.flatten_mapping(node)  # puts in what `<<: *anchor` stands for
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            self._source.lines[(*where, key.value)] = key.start_mark.line + 1
            result[key.value] = self.build(value, (*where, key.value))
        return result

    def _scalar(self, node: yaml.ScalarNode, where: Where) -> Any:
        # Block scalars (`|`, `>`) are prompts and stay as they are; keys are resolved only when a request is sent.
        if node.style in ("|", ">") or "${" not in node.value or (where and where[-1] == "api_key"):
            try:
                return self._loader.construct_object(node)
            except ValueError as error:  # 2024-99-99 looks like a date
                raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
        text = _ENV.sub(lambda match: self._variable(match, where), node.value)
        return yaml.safe_load(text) if node.style is None and _is_plain(text) else text

    def _variable(self, match: re.Match[str], where: Where) -> str:
        if match[1]:
            return match[0][1:]
        value = os.environ.get(match[2], match[3])
        if value is None:
            message = f"the environment variable {match[2]} is not set: export it or write ${{{match[2]}:-default}}"
            self._source.problems.append(Problem(self._source.file, self._source.line(where), "", message))
            return ""
        return value


def _is_plain(text: str) -> bool:
    """Whether an interpolated value shall be read as a number, boolean or null: only if it is nothing but that."""
    try:
        return not isinstance(yaml.safe_load(text), (dict, list, str))
    except yaml.YAMLError:
        return False


def _override(source: Source, override: str) -> None:
    path, equals, text = override.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        source.add((), "", f"--set {override}: write it as path.to.option=value")
        return
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    try:
        where = _locate(source.data, names)
    except LookupError as error:
        source.add((), "", f"--set {override}: {error.args[0]}")
        return
    target: Any = source.data
    for key in where[:-1]:
        target = target[key] if not isinstance(target, dict) else target.setdefault(key, {})
    target[where[-1]] = value
    for known in [known for known in source.lines if known[: len(where)] == where and known != where]:
        del source.lines[known]
    source.overridden[where] = override


def _locate(data: dict[str, Any], names: list[str]) -> Where:
    """The path in the data that dotted names mean; items of lists are named by their name, block or number from 1.

    Raises:
        LookupError: a name leads nowhere.
    """
    where: list[str | int] = []
    here: Any = data
    for index, name in enumerate(names):
        last = index == len(names) - 1
        # A step of several blocks is addressed as `steps.<step>.<block>.<option>`.
        if isinstance(here, dict) and isinstance(here.get("blocks"), list) and name not in here and not last:
            where.append("blocks")
            here = here["blocks"]
        if isinstance(here, list):
            number = _item(here, name)
            where.append(number)
            here = here[number]
        elif isinstance(here, dict):
            if not last and name not in here and index > 0 and names[0] == "steps":
                raise LookupError(f"'{name}' is neither an option nor a block there")
            where.append(name)
            here = here.get(name, {})
        else:
            raise LookupError(f"'{'.'.join(names[:index])}' is a single value and has no '{name}'")
        if last and isinstance(here, (dict, list)) and names[0] == "steps" and index < 2:
            raise LookupError("name an option of the step too: steps.<step>.<option>=value")
    return tuple(where)


def _item(items: list[Any], name: str) -> int:
    matches: list[Callable[[dict[str, Any]], bool]] = [
        lambda item: item.get("name") == name,
        lambda item: item.get("block") == name,
    ]
    for matching in matches:
        for number, item in enumerate(items):
            if isinstance(item, dict) and matching(item):
                return number
    if name.isdigit() and 1 <= int(name) <= len(items):
        return int(name) - 1
    known = [str(item.get("name", item.get("block"))) for item in items if isinstance(item, dict)]
    raise LookupError(f"there is no '{name}'; there are {', '.join(known)}")
