"""Chats, and the columns that trainers read them from.

| layout     | columns                                      | documented by                                   |
|------------|----------------------------------------------|-------------------------------------------------|
| `messages` | `messages` of {role, content}                | TRL, conversational language modelling          |
| `dialogs`  | `dialogs` of {role, content}                 | the published AutoIF scripts                    |
| `sharegpt` | `conversations` of {from, value}, `system`   | LLaMA-Factory, `formatting: sharegpt`           |
| `alpaca`   | `instruction`, `input`, `output`, `system`   | LLaMA-Factory, `formatting: alpaca`             |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..records import read_json


class One(tuple[str, ...]):
    """The keys of a column that holds one object, not a list of them."""


Columns = Mapping[str, tuple[str, ...]]
"""columns of a layout: a text, or a list of objects with these keys"""
LAYOUTS: Mapping[str, Columns] = {
    "messages": {"messages": ("role", "content")},
    "dialogs": {"dialogs": ("role", "content")},
    "sharegpt": {"conversations": ("from", "value"), "system": ()},
    "alpaca": {"instruction": (), "input": (), "output": (), "system": ()},
}

_ROLES = {"human": "user", "gpt": "assistant"}  # what ShareGPT calls them
_NAMES = {role: name for name, role in _ROLES.items()}
Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Chat:
    """One conversation."""

    id: str
    system: str
    turns: Turns
    """(role, text): `user` and `assistant` in turn"""
    metadata: dict[str, Any]


def chat_of(line: bytes) -> Chat:
    """The chat in a row, whichever of the layouts it has.

    Raises:
        ValueError: the row holds none.
    """
    row = object_in(line)
    turns = _turns(row)
    system = [text for role, text in turns if role == "system"]
    if row.get("system"):
        system.insert(0, _text(row["system"], "system"))
    spoken = [turn for turn in turns if turn[0] != "system"]
    roles = [role for role, _ in spoken]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        said = f"a chat needs the user and the assistant in turn, got {', '.join(roles) or 'nothing'}"
        raise ValueError(f"{said}; {remedy(row, 'chat')}" if "ground_truth" in row else said)
    return Chat(str(row.get("id", "")), "\n\n".join(system), spoken, metadata_in(row))


def object_in(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        ValueError: it is none.
    """
    try:
        row = read_json(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("a JSON object is needed")
    return row


def text_in(row: Mapping[str, Any], column: str) -> str:
    """Raises ValueError where the column holds something else."""
    return _text(row.get(column), column)


def metadata_in(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = row.get("metadata")
    return kept if isinstance(kept, dict) else {}


def turns_in(row: Mapping[str, Any], column: str, role: str, text: str) -> Turns:
    """The (role, text) pairs of a column that lists objects.

    Raises:
        ValueError: it does not.
    """
    listed = row.get(column)
    if not isinstance(listed, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get(role), str) for turn in listed
    ):
        raise ValueError(f"'{column}' must be a list of {{{role}, {text}}}")
    return [(_ROLES.get(turn[role], turn[role]), _text(turn.get(text), text)) for turn in listed]


def _turns(row: dict[str, Any]) -> Turns:
    for column, role, text in (("messages", "role", "content"), ("dialogs", "role", "content"),
                               ("conversations", "from", "value")):  # fmt: skip
        if isinstance(row.get(column), list):
            return turns_in(row, column, role, text)
    if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
        asked = "\n".join(part for part in (row["instruction"], row.get("input")) if isinstance(part, str) and part)
        return [("user", asked), ("assistant", row["output"])]
    raise ValueError(f"no chat: the row has {', '.join(map(str, row)) or 'nothing'}; {remedy(row, 'chat')}")


_HOLDING = {  # columns of a whole one, the formats that take it, the block that makes it and a recipe that has this
    "prompt": ({"messages", "ground_truth", "dataset"}, "rlvr or verifiers", "format_rlvr", "rlvr"),
    "pair": ({"prompt", "chosen", "rejected"}, "dpo or ranking", "format_dpo", "dpo"),
    "chat": ({"messages"}, "messages, sharegpt, alpaca or dialogs", "format_sft", "paper"),
}


def remedy(row: Mapping[str, Any], wanted: Literal["chat", "pair", "prompt"]) -> str:
    """What to do where a row is not what the format wants: the format that wants it, or the step that makes one."""
    columns = row.keys() | {"messages"} if row.keys() & {"dialogs", "conversations"} else row.keys()
    for kind, (needed, formats, *_) in _HOLDING.items():
        if needed <= columns and kind != wanted:
            return f"this is a {kind}: use --format {formats}"
        if needed <= columns:
            break
    _, _, block, recipe = _HOLDING[wanted]
    return f"end the recipe with a {block} step, as pipelines/{recipe}.yaml does"


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'{name}' must be a text, got {str(value)[:80]!r}")
    return value


def columns_of(chat: Chat, layout: str) -> dict[str, Any]:
    """The row of a chat.

    Raises:
        ValueError: the layout cannot hold it.
    """
    if layout == "sharegpt":
        return {"conversations": as_said(chat.turns), "system": chat.system}
    if layout == "alpaca":
        if len(chat.turns) > 2:
            raise ValueError(f"alpaca holds one exchange, this chat has {len(chat.turns) // 2}: use another --format")
        return {"instruction": chat.turns[0][1], "input": "", "output": chat.turns[1][1], "system": chat.system}
    return {layout: as_messages(chat.system, chat.turns)}


def as_messages(system: str, turns: Turns) -> list[dict[str, str]]:
    """As OpenAI and TRL have them."""
    first = [("system", system)] if system else []
    return [{"role": role, "content": text} for role, text in (*first, *turns)]


def as_said(turns: Turns) -> list[dict[str, str]]:
    """As ShareGPT has them."""
    return [{"from": _NAMES[role], "value": text} for role, text in turns]
