"""How hard a server is asked: as hard as it can take, and never above what an account allows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .errors import Unfinished

PROBE = 16  # requests in flight at a server that has never answered
TOLERATED = 0.2  # the share of refusals that is no sign of too much: a few 429 or 500 happen to everybody
WINDOW = 20  # the fewest outcomes to judge by
_STEP = 0.05  # of the limit, added after a window without trouble, and twice as much after each without refusals
PERIOD = 60.0


@dataclass(frozen=True)
class ServerHealth:
    """How one server is, as far as one task or, summed, the whole run knows."""

    url: str
    """without a user's name and password, should it hold them"""
    in_flight: int
    limit: int
    """requests that it is asked at a time, now"""
    ceiling: int
    """the same, at best"""
    resting_until: float = 0.0
    """it fails and is left alone until then, in seconds since 1970; 0 if it is not"""
    dead: str = ""
    """why it will never answer"""


class Sleep:
    """Pauses that end when nothing new shall be sent: who sleeps then, or would later, ends as Unfinished."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        await self.until(self._over, seconds)

    async def until(self, event: asyncio.Event, seconds: float) -> bool:
        """Sleeps so long, or until the event; tells whether it has come."""
        if self._over.is_set():
            raise Unfinished
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        if self._over.is_set():
            raise Unfinished
        return event.is_set()

    def end(self) -> None:
        self._over.set()


class AdaptiveLimit:
    """Requests in flight at one server: additive increase, multiplicative decrease (Chiu and Jain 1989).

    It starts at the ceiling, less a probe's caution, since a ceiling in a recipe is mostly meant. A window of outcomes
    with more refusals than `TOLERATED` halves it; one with fewer raises it by a twentieth, and those after one with
    none at all by ever more. The ceiling has no part in this: it may be far above what a server can take, and by steps
    of its size half of all requests would be refused for ever.
    """

    def __init__(self, ceiling: int, adaptive: bool = True) -> None:
        self.ceiling = ceiling
        self._adaptive = adaptive
        self._limit = float(ceiling)
        self._calm = 0  # windows in a row without a refusal
        self._proven = False
        self._changed = 0.0
        self._seen = self._refused = 0

    @property
    def now(self) -> int:
        return max(1, int(self._limit if self._proven or not self._adaptive else min(PROBE, self._limit)))

    def note(self, sent: float, refused: bool) -> None:
        """Learns from a request that was sent at `sent`, on the monotonic clock."""
        self._proven |= not refused
        if not self._adaptive or sent < self._changed:
            return  # it tells of a load that is no more
        self._seen += 1
        self._refused += refused
        window = max(WINDOW, self.now)
        if self._refused > TOLERATED * window:
            self._calm = 0
            self._change(max(1.0, self.now / 2))
        elif self._seen >= window:
            step = max(1.0, _STEP * self._limit) * 2.0 ** min(self._calm, 32)
            self._calm = 0 if self._refused else self._calm + 1
            self._change(min(float(self.ceiling), self._limit + step), grown=True)

    def _change(self, limit: float, grown: bool = False) -> None:
        self._limit = limit
        self._seen = self._refused = 0
        if not grown:
            self._changed = time.monotonic()


class TimeLimit:
    """At most so many seconds, for everything in `with limit:`, where it raises TimeoutError.

    All are given the same time, so they fall due in the order in which they began, and one timer does for them all.
    """

    def __init__(self, seconds: float, what: str = "no end") -> None:
        self._seconds = seconds
        self._what = what
        self._due: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        due = self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._due.pop(task, None) is None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError(f"{self._what} within {self._seconds:g} s")

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, due in list(self._due.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                break
            del self._due[task]
            task.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class RateLimit:
    """At most so much in any 60 seconds: requests, or tokens. Who waits is served in order."""

    def __init__(self, most: int, sleep: Sleep, period: float | None = None) -> None:
        self._most = most
        self._sleep = sleep
        self._period = PERIOD if period is None else period
        self._taken: deque[list[float]] = deque()  # [when, how much]
        self._sum = 0.0
        self._turn = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> list[float]:
        """Waits until there is room; more than the limit itself has room when nothing else was taken."""
        async with self._turn:
            if (wait := self._wait(min(amount, self._most))) > 0:
                await self._sleep(wait)
            entry = [time.monotonic(), amount]
            self._taken.append(entry)
            self._sum += amount
            return entry

    def correct(self, entry: list[float], amount: float) -> None:
        """What it really took, once that is known."""
        if entry[0] > 0.0:  # else it has left the window
            self._sum += amount - entry[1]
            entry[1] = amount

    def _wait(self, amount: float) -> float:
        """Seconds until there is room, as far as entries are not corrected meanwhile, and never too few."""
        now = time.monotonic()
        while self._taken and self._taken[0][0] <= now - self._period:
            gone = self._taken.popleft()
            self._sum -= gone[1]
            gone[0] = 0.0
        room = self._most - self._sum
        for when, much in self._taken:
            if room >= amount:
                break
            room += much
            if room >= amount:
                return max(0.0, when + self._period - now)
        return 0.0
