"""Writers: chat records for training, and plain text beside a step's file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from datatrove.data import Document

from ..errors import DropRecord
from ..prompts import Prompt
from ..records import Record, compact_json, to_row
from ..rewards import constraints_of
from .base import Block
from .functions import check_most, functions_of, weights_of
from .threshold import Threshold


class WriteLines(Block):
    """Also writes one field of each record to a text file in the output directory, a line each.

    Args:
        path: the file, relative to the output directory.
        field: the field to write; its line breaks become spaces.
    """

    kind = "writer"

    def __init__(self, path: str, field: str) -> None:
        super().__init__()
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path.endswith(".txt"):
            raise ValueError(f"path must be a .txt file inside the output directory, got '{path}'")
        self.path = path
        self.field = field
        self.reads = (field,)

    def handle(self, record: Record) -> Iterable[Record]:
        self.live.write(self.path, {"id": record.id, "line": " ".join(str(record[self.field]).split())})
        return [record]


class FormatSft(Block):
    """Turns verified records into chat records for supervised fine-tuning.

    Args:
        format: `dialogs` and `messages` are lists of {role, content}; `sharegpt` is `conversations` of {from, value};
            `alpaca` is {instruction, input, output}.
        user: a template for what the user says.
        system: a template for a system message, if there shall be one.
        response: the field that holds the answer.
        keep: fields to carry along, under `metadata`.
        turns: whether a record is a conversation, in `turns` and `replies`, instead of `user` and `response`.
    """

    kind = "writer"

    def __init__(
        self,
        format: Literal["dialogs", "messages", "sharegpt", "alpaca"] = "dialogs",
        user: str = "{{ query }}\n{{ instruction }}",
        system: str | None = None,
        response: str = "response",
        keep: list[str] | None = None,
        turns: bool = False,
    ) -> None:
        super().__init__()
        if turns and format == "alpaca":
            raise ValueError("turns do not fit into alpaca, which holds one exchange: choose another format")
        self.format = format
        self.turns = turns
        self.user = Prompt(user)
        self.system = Prompt(system) if system is not None else None
        self.response = response
        self.keep = keep or []
        chat = {"turns", "replies"} if turns else {response, *self.user.fields}
        self.reads = sorted({*chat, *self.keep, *(self.system.fields if self.system else ())})
        columns = {"sharegpt": ("conversations",), "alpaca": ("instruction", "input", "output")}.get(format, (format,))
        self.writes = (*columns, *(("system",) if system and format == "alpaca" else ()))
        if self.keep:
            self.writes = (*self.writes, "metadata")

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return frozenset(self.writes)

    def handle(self, record: Record) -> Iterable[Record]:
        if self.turns:
            said = list(zip(record["turns"], record["replies"], strict=True))
        else:
            said = [(self.user.render(record), record[self.response])]
        system = self.system.render(record) if self.system else None
        kept = {"metadata": {field: record[field] for field in self.keep}} if self.keep else {}
        if self.format == "alpaca":
            extra = {"system": system} if system else {}
            ((user, answer),) = said
            return [record.only(instruction=user, input="", output=answer, **extra, **kept)]
        turns = [("system", system)] if system else []
        turns += [turn for user, answer in said for turn in (("user", user), ("assistant", answer))]
        if self.format == "sharegpt":
            names = {"user": "human", "assistant": "gpt"}
            chat = [{"from": names.get(role, role), "value": text} for role, text in turns]
            return [record.only(conversations=chat, **kept)]
        return [record.only(**{self.format: [{"role": role, "content": text} for role, text in turns]}, **kept)]


class FormatDpo(Block):
    """Turns pairs into records for preference training, with an explicit prompt: `prompt`, `chosen` and `rejected`.

    Each is a list of {role, content}, as TRL reads them; `autoif export` makes other layouts of them.

    Args:
        user: a template for what the user says; white space around it is taken off.
        system: a template for a system message, if there shall be one.
        keep: fields to carry along, under `metadata`.
    """

    kind = "writer"

    def __init__(
        self, user: str = "{{ query }}\n{{ instruction }}", system: str | None = None, keep: list[str] | None = None
    ) -> None:
        super().__init__()
        self.user = Prompt(user)
        self.system = Prompt(system) if system is not None else None
        self.keep = keep or []
        used = self.user.fields | (self.system.fields if self.system else frozenset())
        self.reads = sorted({"chosen", "rejected", *self.keep, *used})
        self.writes = ("prompt", "chosen", "rejected", *(("metadata",) if self.keep else ()))

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return frozenset(self.writes)

    def handle(self, record: Record) -> Iterable[Record]:
        prompt = [{"role": "system", "content": self.system.render(record)}] if self.system else []
        prompt.append({"role": "user", "content": self.user.render(record).strip()})
        sides = {side: [{"role": "assistant", "content": record[side]}] for side in ("chosen", "rejected")}
        kept = {"metadata": {field: record[field] for field in self.keep}} if self.keep else {}
        return [record.only(prompt=prompt, **sides, **kept)]


class FormatRlvr(Block):
    """Turns prompts into records for reinforcement learning: what is asked, and the functions that verify an answer.

    `messages`, `ground_truth` and `dataset` are those that open-instruct reads: the ground truth is JSON, here a list
    of constraints with their functions, and `dataset` names the verifier that understands it. `constraint` says it in
    words. `autoif export --format verifiers` makes a Python package of them.

    Args:
        user: a template for what the user says; white space around it is taken off.
        system: a template for a system message, if there shall be one.
        constraints: a field with a list of {instruction, functions}, and a `weight` each where they differ, and
            `function_weights`, where functions do; left out, the record's own `instruction` and `functions` are its
            one constraint.
        pass_rate: the share of a constraint's functions that must accept an answer, as a threshold.
        max_functions: keep only so many of a constraint, the most accurate first; null keeps all.
        weights: without `constraints`, a field with a number for each function to vote with, `mutation_scores` for
            example; null gives all the same.
        dataset: the name of the verifier.
        keep: fields to carry along, under `metadata`.
    """

    kind = "writer"

    def __init__(
        self,
        user: str = "{{ query }}\n{{ instruction }}",
        system: str | None = None,
        constraints: str | None = None,
        pass_rate: str | int | float = "> 0.5",
        max_functions: int | None = None,
        dataset: str = "autoif",
        keep: list[str] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if weights and constraints:
            raise ValueError("weights is for one constraint: several have function_weights of their own, see compose")
        self.weights = weights
        self.user = Prompt(user)
        self.system = Prompt(system) if system is not None else None
        self.constraints = constraints
        self.pass_rate = str(Threshold(pass_rate))
        self.max_functions = check_most(max_functions)
        self.dataset = dataset
        self.keep = keep or []
        used = self.user.fields | (self.system.fields if self.system else frozenset())
        verifying = (constraints,) if constraints else ("instruction", "functions", *((weights,) if weights else ()))
        self.reads = sorted({*verifying, *self.keep, *used})
        self.writes = ("messages", "ground_truth", "dataset", "constraint", *(("metadata",) if self.keep else ()))

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return frozenset(self.writes)

    def handle(self, record: Record) -> Iterable[Record]:
        messages = [{"role": "system", "content": self.system.render(record)}] if self.system else []
        messages.append({"role": "user", "content": self.user.render(record).strip()})
        if self.constraints:
            given = record[self.constraints]
        else:  # a record's own fields of these names mean something else
            given = [{"instruction": record["instruction"], "functions": record["functions"]}]
            if self.weights:
                given[0]["function_weights"] = weights_of(record, self.weights)
        rows = [self._row(each) for each in given]
        try:
            constraints_of(rows)
        except ValueError as error:
            raise DropRecord("nothing_to_verify", str(error)) from error
        kept = {"metadata": {field: record[field] for field in self.keep}} if self.keep else {}
        truth = compact_json(rows).decode()
        words = "\n".join(row["instruction"] for row in rows)
        return [record.only(messages=messages, ground_truth=truth, dataset=self.dataset, constraint=words, **kept)]

    def _row(self, constraint: Mapping[str, Any]) -> dict[str, Any]:
        row = {
            "instruction": constraint["instruction"], "functions": functions_of(constraint)[: self.max_functions],
            "weight": constraint.get("weight", 1.0), "pass_rate": self.pass_rate,
        }  # fmt: skip
        if constraint.get("function_weights") is not None:
            row["function_weights"] = constraint["function_weights"][: self.max_functions]
        return row


class StepFile(Block):
    """Writes what survived a step to its file; the recipe puts one behind every step.

    Args:
        file: relative to the output directory.
        visible: False for what passes from one stage to the next: no step's counts or logs show it.
    """

    kind = "writer"
    quick = True

    def __init__(self, file: str, visible: bool = True) -> None:
        super().__init__()
        self.file = file
        self.visible = visible

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.live.touch(self.file)
        if self.visible:
            self.live.touch(f"dropped/{self.step}.jsonl")
        yield from super().run(data, rank, world_size)

    def handle(self, record: Record) -> Iterable[Record]:
        try:
            self.live.write(self.file, to_row(record))
        except (TypeError, ValueError, RecursionError) as error:
            raise DropRecord("not_json", f"{type(error).__name__}: {error}") from error
        return [record]
