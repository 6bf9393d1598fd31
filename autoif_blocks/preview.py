"""`autoif preview`: a few records on their way through one step: what is asked, answered, and made of the answers."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document
from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from .answers import Completion
from .blocks.base import AsyncBlock, Block
from .blocks.readers import ReadStep
from .client import Client
from .context import RunContext, RunSettings
from .errors import RecipeError
from .lineage import ids_in
from .models import SIMULATED
from .outputs import CACHE_LOCK, held
from .plain import one_line, plain
from .plan import step_1_is_cheap
from .recipe import Recipe
from .records import MADE_FROM, Record
from .run import RunOptions
from .servers import server_specs
from .simulated import simulated_teacher
from .steps import Step

_WIDE = 120
_MOST = 2000  # characters of a text that are shown


@dataclass
class Exchange:
    """One question to a model."""

    messages: list[dict[str, str]]
    completions: list[Completion]
    error: str = ""


@dataclass
class Passage:
    """One record's way through the step."""

    record: dict[str, Any]
    """its fields as it came; empty for what the step itself begins with"""
    exchanges: list[Exchange] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    """the records that it became, each with the fields that are new or changed"""
    lost: list[str] = field(default_factory=list)
    """what was dropped or discarded, and why"""


def preview(recipe: Recipe, step: str, count: int) -> list[Passage]:
    """Runs what stands before the step on a few records, and then the step on `count` of them, with an eye on it.

    What is asked is kept in the recipe's cache.

    Raises:
        RecipeError: there is no such step, or nothing comes to it.
        StopRun: the run cannot go on.
    """
    number = recipe.step_number(step)
    with tempfile.TemporaryDirectory(prefix="autoif-preview-") as name:
        before = Path(name) / "before"
        if number > 1:
            trial = replace(recipe.apart(before, recipe.cache_dir), shards=None)
            trial.run(RunOptions(limit=count, end_step=number - 1, limit_reading=not step_1_is_cheap(recipe)))
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(recipe.cache_dir, CACHE_LOCK, "use another --cache-dir"))
            source = [ReadStep(str(before / recipe.steps[number - 2].file))] if number > 1 else []
            blocks = [*source, *(spec.build() for spec in recipe.steps[number - 1].blocks)]
            used = sorted({block.model for block in blocks if hasattr(block, "model")})
            served = [name for name, model in recipe.models.items() if model.base_url == SIMULATED]
            url = stack.enter_context(simulated_teacher(Path(name) / "teacher.log")) if served else ""
            settings = RunSettings(
                work_dir=f"{name}/work", cache_dir=str(recipe.cache_dir), seed=recipe.seed, models=recipe.models,
                base_urls=dict.fromkeys(served, url), sandbox=recipe.sandbox, logs=f"{name}/logs",
                servers=server_specs(recipe.models, used, recipe.path.resolve().parent),
            )  # fmt: skip
            watched = _Watched(settings, recipe.steps[number - 1], blocks, count if number > 1 else None)
            passages = watched.run()
    if not passages:
        raise RecipeError(f"no record comes to step '{recipe.steps[number - 1].name}': try a larger -n")
    return passages[:count]


class _Watched(RunContext):
    """The context of a step whose questions, answers and losses are noted by record."""

    def __init__(self, settings: RunSettings, step: Step, blocks: list[Block], count: int | None) -> None:
        super().__init__(settings)
        self.count = count
        self.passages: dict[str, Passage] = {}
        self._record: ContextVar[str] = ContextVar("record", default="")
        self._clients: dict[str, Client] = {}
        self.blocks = blocks
        for position, block in enumerate(self.blocks):
            block.order = step.number
            block.bind(step.name, position, self)
            if isinstance(block, AsyncBlock):
                block.handle_async = self._knowing(block.handle_async)  # type: ignore[method-assign]

    def run(self) -> list[Passage]:
        self.open(0)
        try:
            data: Iterable[Document] = ()
            for position, block in enumerate(self.blocks):
                data = block.run(data)
                if position == 0 and self.count is not None:
                    data = self._come(islice(data, self.count))
            for document in data:
                self._made(Record(document))
        finally:
            self.close(True)
        return list(self.passages.values())

    def _come(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.passages[str(document.id)] = Passage(dict(document.metadata))
            yield document

    def _passage(self, record_id: str) -> Passage:
        return self.passages.setdefault(record_id, Passage({}))

    def _passage_of(self, record_id: str, fields: Mapping[str, Any]) -> Passage:
        """That of the record, or of the nearest one that it descends from."""
        ids = [record_id, *reversed(ids_in(fields))]
        return self._passage(next((known for known in ids if known in self.passages), ""))

    def _made(self, record: Record) -> None:
        passage = self._passage_of(record.id, record)
        new = {k: v for k, v in record.items() if k != MADE_FROM and passage.record.get(k) != v}
        passage.made.append(new)

    def _knowing(self, handle: Callable[[Record], Awaitable[Iterable[Record]]]) -> Any:
        async def handle_async(record: Record) -> Iterable[Record]:
            self._record.set(record.id)
            return await handle(record)

        return handle_async

    def client(self, model: str) -> Client:
        if model not in self._clients:
            client = self._clients[model] = super().client(model)
            ask = client.complete

            async def complete(messages: Any, *more: Any, **options: Any) -> list[Completion]:
                exchange = Exchange(list(messages), [])
                self._passage(self._record.get()).exchanges.append(exchange)
                try:
                    exchange.completions = await ask(messages, *more, **options)
                except Exception as error:
                    exchange.error = str(error)
                    raise
                return exchange.completions

            client.complete = complete  # type: ignore[method-assign]
        return self._clients[model]

    def write(self, file: str, row: Any) -> None:
        if file.startswith(("dropped/", "discarded/")):
            verb = "dropped" if file.startswith("dropped/") else "left out"
            detail = f": {row['detail']}" if row["detail"] else ""
            passage = self._passage_of(row["id"], row.get("record", {}))
            passage.lost.append(f"{verb} by {row['block']}, {row['reason']}{detail}")


def show(recipe: Recipe, step: str, count: int, whole: bool) -> None:
    """Prints the records one after another: the question, the answers, and what was made of them, side by side.

    Raises:
        RecipeError, StopRun: see `preview`.
    """
    passages = preview(recipe, step, count)
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160)
    for passage in passages:
        console.rule(Text(one_line(_title(passage.record), 100)))
        asked = Group(*(part for exchange in passage.exchanges for part in _asked(exchange, whole)))
        answered = Group(*(part for exchange in passage.exchanges for part in _answered(exchange, whole)))
        parts = [
            *([Panel(asked, title="asked", title_align="left")] if passage.exchanges else []),
            *([Panel(answered, title="answered", title_align="left")] if passage.exchanges else []),
            Panel(Group(*_outcome(passage, whole)), title="made of it", title_align="left"),
        ]
        if console.width < _WIDE:
            console.print(*parts, sep="\n")
        else:
            console.print(Columns(parts, width=console.width // len(parts) - 2, expand=True))


def _title(record: dict[str, Any]) -> str:
    texts = [f"{name}: {value}" for name, value in record.items() if isinstance(value, str)]
    return "   ".join(texts[-2:]) or "what the step begins with"


def _asked(exchange: Exchange, whole: bool) -> Iterator[Text]:
    for message in exchange.messages:
        role = message.get("role", "")
        if role != "user":
            yield Text(f"[{role}]", style="dim")
        yield _text(message.get("content", ""), whole)


def _answered(exchange: Exchange, whole: bool) -> Iterator[Text]:
    if exchange.error:
        yield Text(plain(exchange.error), style="red")
    for number, completion in enumerate(exchange.completions, start=1):
        cut = ", cut off" if completion.finish_reason == "length" else ""
        if len(exchange.completions) > 1 or cut:
            yield Text(f"[{number} of {len(exchange.completions)}{cut}]", style="dim")
        yield _text(completion.text, whole)


def _outcome(passage: Passage, whole: bool) -> Iterator[Text]:
    for number, fields in enumerate(passage.made, start=1):
        if len(passage.made) > 1:
            yield Text(f"[record {number} of {len(passage.made)}]", style="dim")
        if not fields:
            yield Text("kept as it was", style="green")
        for name, value in fields.items():
            yield Text.assemble((f"{name}: ", "green"), _text(_readable(value), whole))
    for line in passage.lost:
        yield Text(plain(line), style="yellow")


def _readable(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(["", *value])
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(text: str, whole: bool) -> Text:
    shown = plain(text)
    return Text(shown if whole or len(shown) <= _MOST else f"{shown[:_MOST]} … ({len(shown) - _MOST} characters more)")
