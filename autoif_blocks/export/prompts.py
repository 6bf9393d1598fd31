"""Prompts with what verifies an answer, for reinforcement learning, and the columns that trainers read them from.

| layout | columns                                                   | like                                            |
|--------|-----------------------------------------------------------|-------------------------------------------------|
| `rlvr` | `messages` of {role, content}, `ground_truth`, `dataset`, | open-instruct's data of constraints: the ground |
|        | `constraint`                                              | truth is JSON, `dataset` names a verifier       |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..rewards import constraints_of
from .layouts import Columns, Turns, as_messages, metadata_in, object_in, remedy, text_in, turns_in

PROMPT_LAYOUTS: Mapping[str, Columns] = {
    "rlvr": {"messages": ("role", "content"), "ground_truth": (), "dataset": (), "constraint": ()},
}


@dataclass(frozen=True)
class Task:
    """A prompt, and what verifies an answer to it."""

    id: str
    turns: Turns
    """(role, text), the last one the user's"""
    ground_truth: str
    dataset: str
    constraint: str
    metadata: dict[str, Any]


def task_of(line: bytes) -> Task:
    """The prompt in a row of `format_rlvr`.

    Raises:
        ValueError: the row holds none, or nothing that verifies an answer.
    """
    row = object_in(line)
    if missing := sorted({"messages", "ground_truth", "dataset"} - row.keys()):
        named = ", ".join(map(str, row)) or "nothing"
        said = f"there is no {' and no '.join(missing)}, the row has {named}"
        raise ValueError(f"no prompt with a ground truth: {said}; {remedy(row, 'prompt')}")
    turns = turns_in(row, "messages", "role", "content")
    if not turns or turns[-1][0] != "user":
        raise ValueError("messages must end with the user's")
    ground_truth = text_in(row, "ground_truth")
    constraints_of(ground_truth)
    constraint = text_in(row, "constraint") if "constraint" in row else ""
    return Task(str(row.get("id", "")), turns, ground_truth, text_in(row, "dataset"), constraint, metadata_in(row))


def columns_of_task(task: Task) -> dict[str, Any]:
    """The row of a prompt."""
    return {
        "messages": as_messages("", task.turns),
        "ground_truth": task.ground_truth,
        "dataset": task.dataset,
        "constraint": task.constraint,
    }
