"""The four kinds of block: ask a model, run code, add a value, decide who stays. `base.py` has what they share."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from ..client import Message
from ..errors import DropRecord
from ..prompts import Prompt
from ..records import Record
from ..sandbox import Outcome
from .base import AsyncBlock, Block

T = TypeVar("T")
FINAL = {"request_failed", "request_refused", "prompt_failed"}  # drops that asking again would not help


class Generator(AsyncBlock):
    """Asks a model about each record. Subclasses say what `parse` makes of the answers.

    Args:
        prompt: a jinja2 template over the record's fields, or the name of a .jinja file next to the recipe.
        model: one of the recipe's models.
        n: completions for each record.
        system: a template for the system message, if there shall be one.
        reask: how often to ask again for completions when `parse` finds nothing in those that came.
        temperature, top_p, max_tokens, stop: sampling options; those left out are the server's own.
        json_schema: a JSON Schema that the server shall hold its answers to; one that cannot is asked without.
        on_length: what becomes of a completion that ended at max_tokens: `keep` it, or `discard` it.
        extra: anything else to put into the request, `{top_k: 20}` for example.
    """

    kind = "generator"

    def __init__(
        self,
        prompt: str,
        model: str = "teacher",
        n: int = 1,
        system: str | None = None,
        reask: int = 0,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: list[str] | None = None,
        json_schema: dict[str, Any] | None = None,
        on_length: Literal["keep", "discard"] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if reask < 0:
            raise ValueError(f"reask must be at least 0, got {reask}")
        self.prompt = Prompt(prompt)
        self.system = Prompt(system) if system is not None else None
        self.model = model
        self.n = n
        self.reask = reask
        options = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "stop": stop, **(extra or {})}
        self.sampling = {name: value for name, value in options.items() if value is not None}
        if json_schema is not None:
            schema = {"name": "answer", "schema": json_schema, "strict": True}
            self.sampling["response_format"] = {"type": "json_schema", "json_schema": schema}
        if on_length is not None:
            self.on_length = on_length
        # What the templates use is read too; what `variables` supplies does not come from the record.
        self._used = self.prompt.fields | (self.system.fields if self.system else frozenset())
        self.reads = sorted({*type(self).reads, *self._used} - set(self.supplies))
        self.must_show(self.needs)

    def must_show(self, names: Sequence[str]) -> None:
        """Refuses a prompt that asks the same whatever these variables hold."""
        if missing := [name for name in names if name not in self._used]:
            raise ValueError(f"the prompt does not show what it is about: put {{{{ {missing[0]} }}}} into it")

    supplies: ClassVar[Sequence[str]] = ()
    """template variables that the block itself gives to the prompt"""
    needs: ClassVar[Sequence[str]] = ()
    """those of them without which a prompt makes no sense"""
    on_length: str = "keep"
    """what becomes of completions that were cut off, unless the option says otherwise"""

    def width(self) -> int:
        # Records that are done and not yet taken fill half of the window; the other half keeps the server busy.
        return max(self.window, 2 * self.live.settings.models[self.model].slots)

    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        """The records that the completions make of this one: `record.with_(…)` or several `record.child(…)`.

        Raises:
            DropRecord: nothing usable came.
        """
        raise NotImplementedError(f"{type(self).__name__} must define parse()")

    async def handle_async(self, record: Record) -> Iterable[Record]:
        for attempt in range(self.reask + 1):
            try:
                return list(await self.attempt(record, attempt * self.n))
            except DropRecord as drop:
                if attempt == self.reask or drop.reason in FINAL:
                    raise
                self.discard(record, drop.reason, drop.detail)
        raise AssertionError("unreachable")

    async def attempt(self, record: Record, start: int) -> Iterable[Record]:
        """What the record becomes if it is asked about once; `start` numbers the first completion. `reask` has it done
        again, as often as that, where a DropRecord comes of it."""
        return self.parse(await self.ask(record, start=start), record)

    async def each(self, record: Record, asked: Iterable[Awaitable[T]]) -> list[T]:
        """What comes of several questions about one record. One that is dropped is left out; if all are, so is the
        record."""
        found = await asyncio.gather(*asked, return_exceptions=True)
        dropped = [one for one in found if isinstance(one, DropRecord)]
        for one in found:
            if isinstance(one, BaseException) and (not isinstance(one, DropRecord) or len(dropped) == len(found)):
                raise one
        for drop in dropped:
            self.discard(record, drop.reason, drop.detail)
        return [one for one in found if not isinstance(one, BaseException)]

    async def ask(
        self, record: Record, start: int = 0, n: int | None = None, history: Sequence[Message] = (), **variables: Any
    ) -> list[str]:
        """`n` completions of the prompt, rendered with the record's fields and `variables`; `start` numbers the first.
        `history` are the messages before it.

        Raises:
            DropRecord: the request cannot be made or is refused, or every completion was cut off.
        """
        values = {**record.document.metadata, **variables}
        messages = [{"role": "system", "content": self.system.render(values)}] if self.system else []
        messages += history
        messages.append({"role": "user", "content": self.prompt.render(values)})
        client = self.live.client(self.model)
        completions = await client.complete(
            messages, n or self.n, start, self.sampling, self.meter, priority=self.order, step=self.step
        )
        whole = [completion for completion in completions if completion.finish_reason != "length"]
        if self.on_length == "keep" or len(whole) == len(completions):
            return [completion.text for completion in completions]
        if not whole:
            raise DropRecord("cut_off", f"{len(completions)} completions, all ended by max_tokens")
        for _ in range(len(completions) - len(whole)):
            self.discard(record, "cut_off")
        return [completion.text for completion in whole]


class Executor(AsyncBlock):
    """Runs model-written code on inputs, in the sandbox, and says what the results mean."""

    kind = "executor"

    def jobs(self, record: Record) -> Sequence[tuple[str, Sequence[str]]]:
        """Pairs of (code that defines `evaluate(response)`, its inputs)."""
        raise NotImplementedError(f"{type(self).__name__} must define jobs()")

    def judge(self, record: Record, runs: list[list[Outcome]]) -> Iterable[Record]:
        """What the record becomes; `runs` holds, for each job, one outcome for each of its inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define judge()")

    async def handle_async(self, record: Record) -> Iterable[Record]:
        sandbox = await self.live.sandbox()
        return self.judge(record, await sandbox.execute_all(self.jobs(record)))


class Scorer(Block):
    """Adds a value to each record, from code. (A score from a model is a `Generator` that adds a field.)

    Args:
        field: the name of the field to add.
    """

    kind = "scorer"

    def __init__(self, field: str = "score") -> None:
        super().__init__()
        self.field = field
        self.writes = (field,)

    @abstractmethod
    def score(self, record: Record) -> Any:
        """The value: a number, a label, a list, anything that JSON can hold."""

    def handle(self, record: Record) -> Iterable[Record]:
        return [record.with_(**{self.field: self.score(record)})]


class Filter(Block):
    """Keeps records or drops them with a reason."""

    kind = "filter"

    @abstractmethod
    def reject(self, record: Record) -> str | tuple[str, str] | None:
        """Why the record must go, as a short countable reason, or (reason, detail); None keeps it."""

    def handle(self, record: Record) -> Iterable[Record]:
        verdict = self.reject(record)
        if verdict is None:
            return [record]
        if isinstance(verdict, str):
            raise DropRecord(verdict)
        if not isinstance(verdict, tuple):
            raise TypeError(f"reject() must return a reason, (reason, detail) or None, got {verdict!r}")
        raise DropRecord(*verdict)
