"""Fields from step to step: whether each block reads only what an earlier one writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .blocks.base import Block
from .options import nearest
from .source import Source, Where
from .steps import BlockSpec


@dataclass(frozen=True)
class Placed:
    """A block of the recipe in its place. What is wrong with it is noted; without a `spec` it cannot be built."""

    step: str
    where: Where
    title: str
    spec: BlockSpec | None = None
    block: Block | None = None


def check_flow(source: Source, placed: list[Placed]) -> None:
    """Checks that the first block reads records, and that each reads only fields that an earlier one writes."""
    fields: frozenset[str] | None = frozenset()  # None: anything may be there, after a block that is not known
    lost: dict[str, str] = {}
    for index, here in enumerate(placed):
        block = here.block
        if block is None:
            fields = None
            continue
        is_reader = block.kind == "reader" or getattr(block, "is_reader", False)
        if index == 0 and not is_reader:
            advice = "begin with a reader: read_lines, read_jsonl or a datatrove reader"
            message = f"{here.title} cannot come first, there are no records yet: {advice}"
            source.add(here.where, here.step, message)
            fields = None
        if fields is None:
            continue
        for name in sorted(set(block.reads) - fields):
            hint = _hint(name, fields, placed[index + 1 :], lost)
            where = _naming(name, here.spec.options if here.spec else {}, here.where)
            source.add(where, here.step, f"{here.title} reads '{name}', which no earlier step writes; {hint}")
        before = fields | set(block.reads)
        try:
            fields = None if block.kind == "datatrove" and is_reader else frozenset(block.fields_after(before))
        except Exception as error:
            message = f"{here.title}: its fields_after() fails: {type(error).__name__}: {error}"
            source.add(here.where, here.step, message)
            fields = None
        lost |= dict.fromkeys(before - (fields or before), here.step)


def _hint(name: str, fields: frozenset[str], later: list[Placed], lost: Mapping[str, str]) -> str:
    if name in lost:
        return f"step '{lost[name]}' does not pass it on: add it to what that step keeps"
    writers = list(dict.fromkeys(other.step for other in later if other.block and name in other.block.writes))
    if writers:
        return f"it is written by {', '.join(map(repr, writers))}: move that step before this one"
    return nearest(name, sorted(fields), "fields here")


def _naming(field: str, options: Mapping[str, Any], where: Where) -> Where:
    """The option that names a field, alone, in a list or in a template; else the whole block."""
    word = re.compile(rf"\b{re.escape(field)}\b")
    for option, value in options.items():
        if any(isinstance(text, str) and word.search(text) for text in (value if isinstance(value, list) else [value])):
            return (*where, option)
    return where
