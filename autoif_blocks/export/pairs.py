"""Pairs for preference training, and the columns that trainers read them from.

| layout    | columns                                                     | documented by                              |
|-----------|-------------------------------------------------------------|--------------------------------------------|
| `dpo`     | `prompt`, `chosen` and `rejected`: lists of {role, content} | TRL, conversational preference data with   |
|           |                                                             | an explicit prompt                         |
| `ranking` | `conversations` of {from, value}, `chosen` and `rejected`:  | LLaMA-Factory, `formatting: sharegpt` with |
|           | one {from, value} each, `system`                            | `ranking: true`                            |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .layouts import Columns, One, Turns, as_messages, as_said, metadata_in, object_in, remedy, turns_in

PAIR_LAYOUTS: Mapping[str, Columns] = {
    "dpo": {"prompt": ("role", "content"), "chosen": ("role", "content"), "rejected": ("role", "content")},
    "ranking": {
        "conversations": ("from", "value"), "chosen": One(("from", "value")), "rejected": One(("from", "value")),
        "system": (),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A prompt and two answers to it, of which the first is the better one."""

    id: str
    system: str
    prompt: Turns
    """(role, text): `user` and `assistant` in turn, the last one the user's"""
    chosen: str
    rejected: str
    metadata: dict[str, Any]


def pair_of(line: bytes) -> Pair:
    """The pair in a row of `format_dpo`.

    Raises:
        ValueError: the row holds none, or its sides are equal.
    """
    row = object_in(line)
    if missing := sorted({"prompt", "chosen", "rejected"} - row.keys()):
        named = ", ".join(map(str, row)) or "nothing"
        told = f"there is no {' and no '.join(missing)}, the row has {named}"
        raise ValueError(f"no pair: {told}; {remedy(row, 'pair')}")
    said = turns_in(row, "prompt", "role", "content")
    system = [text for role, text in said if role == "system"]
    prompt = [turn for turn in said if turn[0] != "system"]
    roles = [role for role, _ in prompt]
    if roles != ["user", *["assistant", "user"] * (len(roles) // 2)]:
        raise ValueError(f"a prompt needs the user and the assistant in turn, the user last, got {', '.join(roles)}")
    chosen, rejected = (_answer(row, side) for side in ("chosen", "rejected"))
    if chosen.split() == rejected.split():
        raise ValueError("chosen and rejected are equal: nothing can be learnt of such a pair")
    return Pair(str(row.get("id", "")), "\n\n".join(system), prompt, chosen, rejected, metadata_in(row))


def _answer(row: Mapping[str, Any], side: str) -> str:
    turns = turns_in(row, side, "role", "content")
    if [role for role, _ in turns] != ["assistant"]:
        raise ValueError(f"'{side}' must be one message of the assistant")
    return turns[0][1]


def columns_of_pair(pair: Pair, layout: str) -> dict[str, Any]:
    """The row of a pair."""
    chosen, rejected = ([("assistant", text)] for text in (pair.chosen, pair.rejected))
    if layout == "dpo":
        return {
            "prompt": as_messages(pair.system, pair.prompt),
            "chosen": as_messages("", chosen),
            "rejected": as_messages("", rejected),
        }
    (better,), (worse,) = as_said(chosen), as_said(rejected)
    return {"conversations": as_said(pair.prompt), "chosen": better, "rejected": worse, "system": pair.system}
