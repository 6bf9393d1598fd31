"""`--set path.to.option=value`: a value of a recipe replaced from the command line, as carefully as it was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from .errors import Problem
from .source import UNWRITABLE, Loader, Source, Where, explain, value_of


def override(source: Source, assignment: str) -> None:
    """Puts `path.to.option=value` into the recipe's data; what is wrong with it joins the source's problems."""
    path, equals, text = assignment.partition("=")
    path = path.strip()
    names = path.split(".")
    if not equals or not all(names):
        _complain(source, path, "write it as path.to.option=value")
        return
    try:
        where = tuple(_locate(source.data, names))
    except LookupError as error:
        _complain(source, path, error.args[0])
        return
    if UNWRITABLE.search(text):
        _complain(source, path, "the value is no UTF-8 text")
        return
    aside = Source(source.file, source.folder, {})
    try:
        value = _typed(text, aside, where)
    except yaml.MarkedYAMLError as error:
        _complain(source, path, explain(error)[0])
        return
    for problem in aside.problems:
        _complain(source, path, problem.message)
    source.unset |= aside.unset
    target: Any = source.data
    for key in where[:-1]:
        inner = target.get(key) if isinstance(target, dict) else target[key]
        if inner is None:
            inner = target[key] = {}
        target = inner
    target[where[-1]] = value
    for known in [known for known in source.lines if known[: len(where)] == where and known != where]:
        del source.lines[known]
    source.overridden[where] = path


def _complain(source: Source, path: str, message: str) -> None:
    # The value stays out of it: it may be a key.
    source.problems.append(Problem(source.file, 0, "", f"--set {path or '(nothing)'}: {message}"))


def _typed(text: str, source: Source, where: Where) -> Any:
    """A value as typed in a shell: YAML for numbers, `[a, b]`, `{a: b}` and quoted text, otherwise text as it is."""
    if text.lstrip().startswith(("{{", "{%")):
        return text  # a template
    try:
        node = Loader(text).get_single_node()
    except (yaml.YAMLError, ValueError, OverflowError):  # `> 8`, `*.txt`, `say "x": …`
        return text
    flow = isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")
    if node is not None and not flow and not getattr(node, "flow_style", False):
        return text  # `Rate this: …` is a sentence, `>8` is a threshold
    return value_of(text, source, where)


def _locate(data: dict[str, Any], names: list[str]) -> Iterator[str | int]:
    """The path in the data that dotted names mean; items of lists are named by their name, block or number from 1.

    Raises:
        LookupError: a name leads nowhere.
    """
    here: Any = data
    index = 0
    while index < len(names):
        name = names[index]
        if isinstance(here, dict):  # a model may be called qwen2.5
            joined = (".".join(names[index:end]) for end in range(len(names), index, -1))
            name = next((whole for whole in joined if whole in here), name)
        index += name.count(".") + 1
        last = index == len(names)
        # A step of several blocks is addressed as `steps.<step>.<block>.<option>`.
        if isinstance(here, dict) and isinstance(here.get("blocks"), list) and name not in here:
            if last:
                raise LookupError(
                    f"this step has several blocks, name one of them before '{name}': {_names(here['blocks'])}"
                )
            yield "blocks"
            here = here["blocks"]
        if isinstance(here, list):
            number = _item(here, name)
            yield number
            here = here[number]
        elif isinstance(here, dict) or here is None:
            yield name
            here = (here or {}).get(name)
        else:
            raise LookupError(f"'{'.'.join(names[: index - 1])}' is a single value and has no '{name}'")
    if names[0] == "steps" and len(names) < 3:
        raise LookupError("name a step and an option of it: steps.<step>.<option>=value")


def _item(items: list[Any], name: str) -> int:
    for key in ("name", "block"):
        found = [number for number, item in enumerate(items) if isinstance(item, dict) and item.get(key) == name]
        if len(found) > 1:
            numbers = ", ".join(str(number + 1) for number in found)
            raise LookupError(f"there are {len(found)} '{name}': say which by its number, {numbers}")
        if found:
            return found[0]
    if re.fullmatch("[0-9]{1,9}", name) and 1 <= int(name) <= len(items):
        return int(name) - 1
    raise LookupError(f"there is no '{name}'; there are {_names(items) or 'none'}")


def _names(items: list[Any]) -> str:
    named = (item if isinstance(item, dict) else {} for item in items)
    return ", ".join(str(item.get("name") or item.get("block") or number) for number, item in enumerate(named, start=1))
