"""What a run may spend, and who notices that it is spent: the last look before each request."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .accounting import Meter
from .errors import Unfinished
from .stopping import StopFlag

_OTHERS_EVERY = 0.5  # seconds between two looks at what the other tasks have used


@dataclass(frozen=True)
class Budget:
    """The most that one command may spend; replayed completions cost nothing. When one of these is used up the run
    stops, keeps what is finished, and ends with exit code 4; the same command continues with as much again."""

    requests: int | None = None
    """HTTP requests, attempts that fail included; never exceeded, however many tasks there are"""
    tokens: int | None = None
    """tokens of prompts and completions; known only from the answers, so requests in flight may exceed it a little"""
    cost: float | None = None
    """in the currency of the models' `price`; known only from the answers, too"""
    minutes: float | None = None
    """wall time of the command"""

    def __post_init__(self) -> None:
        for name in ("requests", "tokens", "cost", "minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}: leave it out to have no such limit")

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.requests, self.tokens, self.cost, self.minutes))


class Purse:
    """One task's view of the run's budget."""

    def __init__(
        self, budget: Budget, flag: StopFlag, began: float, status: Path,
        meters: Mapping[tuple[str, int, str], Meter], paid: Meter,
    ) -> None:  # fmt: skip
        """`began` is when the command began, by the clock on the wall; `status` this task's own status file;
        `paid` what the command had used before its tasks began."""
        self._budget = budget
        self._flag = flag
        self._began = began
        self._status = status
        self._meters = meters
        self._paid = paid
        self._others = Meter()
        self._looked = 0.0
        self._counter: int | None = None
        if budget.requests is not None:
            # Each request appends a byte. The file's length counts those of all processes, without a lock.
            path = flag.path.with_name("requests")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._counter = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def admit(self) -> None:
        """Called before each request is sent.

        Raises:
            Unfinished: the run is stopping, or this request would exceed a budget.
        """
        if self._flag.stop is None:
            budget = self._budget
            if budget.tokens is not None or budget.cost is not None:
                own = self._own()
                tokens = own.prompt_tokens + own.completion_tokens
                tokens += self._others.prompt_tokens + self._others.completion_tokens
                cost = own.cost + self._others.cost
                if budget.tokens is not None and tokens >= budget.tokens:
                    self._spent("tokens", f"{tokens} of {budget.tokens}")
                elif budget.cost is not None and cost >= budget.cost:
                    self._spent("cost", f"{cost:.4g} of {budget.cost:g}")
            if self._flag.stop is None and budget.requests is not None and self._next_request() > budget.requests:
                self._spent("requests", f"{budget.requests} of {budget.requests}")
        if self._flag.stop is not None:
            raise Unfinished

    def look(self) -> None:
        """Called a few times a second: what changes without a request of this task's own."""
        now, budget = time.time(), self._budget
        if budget.minutes is not None and now - self._began >= budget.minutes * 60 and self._flag.stop is None:
            self._spent("minutes", f"{(now - self._began) / 60:.3g} of {budget.minutes:g}")
        if (budget.tokens is None and budget.cost is None) or time.monotonic() - self._looked < _OTHERS_EVERY:
            return
        self._looked, others = time.monotonic(), Meter()
        for path in self._status.parents[1].glob("stage-*/*.status.json"):
            if path != self._status:
                with contextlib.suppress(OSError, ValueError):  # replaced at this very moment
                    for *_, row in json.loads(path.read_text())["meters"]:
                        others.add(Meter.from_dict(row))
        self._others = others

    def close(self) -> None:
        if self._counter is not None:
            os.close(self._counter)
            self._counter = None

    def _own(self) -> Meter:
        own = replace(self._paid)
        for meter in list(self._meters.values()):
            own.prompt_tokens += meter.prompt_tokens
            own.completion_tokens += meter.completion_tokens
            own.cost += meter.cost
        return own

    def _next_request(self) -> int:
        assert self._counter is not None
        os.write(self._counter, b".")
        return os.lseek(self._counter, 0, os.SEEK_CUR)  # where the byte went: its number

    def _spent(self, name: str, used: str) -> None:
        self._flag.request("budget", f"budget.{name} is used up: {used}")
