"""Writers: chat records for training, and plain text beside a step's file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Literal

from datatrove.data import Document

from ..errors import DropRecord
from ..prompts import Prompt
from ..records import Record, to_row
from .base import Block


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
