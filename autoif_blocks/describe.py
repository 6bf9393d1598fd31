"""What a block tells about itself: its docstring, its constructor, its fields. `autoif blocks` prints it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from .blocks import BLOCKS
from .blocks.base import Block
from .options import options_of, shown
from .resolve import find_block


def catalogue() -> str:
    """The built-in blocks, a line each, by kind."""
    classes = {name: find_block(name, Path()) for name in BLOCKS}
    width = max(map(len, BLOCKS))
    lines = [f"{name:<{width}}  {getattr(cls, 'kind', ''):<9}  {summary(cls)}" for name, cls in classes.items()]
    note = (
        "\n`autoif blocks NAME` shows options and fields. "
        "A recipe may also name file.py:Class, or any datatrove block by its dotted path."
    )
    return "\n".join(lines) + "\n" + note


def description(name: str, cls: type) -> str:
    """One block in full."""
    doc = inspect.getdoc(cls) or inspect.getdoc(vars(cls).get("__init__")) or "(no description)"
    about, _, _arguments = doc.partition("\nArgs:\n")
    helps = argument_helps(cls)
    lines = [
        f"{name}  ({getattr(cls, 'kind', 'datatrove block')}, {cls.__module__}.{cls.__qualname__})",
        "",
        about.strip(),
        "",
    ]
    lines.append("options:")
    for option in options_of(cls).values():
        default = "required" if option.required else f"default {shown(option.default)}"
        lines.append(f"  {option.name}: {option.type_name}  [{default}]")
        lines += [f"      {helps[option.name]}"] if option.name in helps else []
    if lines[-1] == "options:":
        lines.append("  none")
    if issubclass(cls, Block):
        lines += ["", f"reads:  {fields_of(cls, 'reads')}", f"writes: {fields_of(cls, 'writes')}"]
    return "\n".join(lines)


def summary(cls: type) -> str:
    return re.split(r"(?<=\.)\s", inspect.getdoc(cls) or "")[0].rstrip(".").replace("\n", " ")


def argument_helps(cls: type) -> dict[str, str]:
    """Option -> its line under `Args:`, base classes' included; `a, b: text` documents both."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, arguments = inspect.cleandoc(base.__doc__ or "").partition("\nArgs:\n")
        for match in re.finditer(r"^    (\w[\w, ]*):(.*(?:\n        .*)*)", arguments, re.MULTILINE):
            for option in match[1].split(","):
                helps[option.strip()] = " ".join(match[2].split())
    return helps


def fields_of(cls: type, attribute: str) -> str:
    """The fields that the class names; what options and prompts add is known only in a recipe."""
    named: Any = getattr(cls, attribute)
    fields = ", ".join(named) if isinstance(named, (tuple, list)) else ""
    # Blocks that set `self.reads` or `self.writes` from their options say so in their constructor.
    by_options = any(
        f"self.{attribute} =" in _source(vars(base)["__init__"])
        for base in cls.__mro__
        if issubclass(base, Block) and "__init__" in vars(base)
    )
    return " and ".join(part for part in (fields, "what its options name" if by_options else "") if part) or "nothing"


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # a dataclass has no source for its __init__
        return ""
