"""How a block keeps many records in flight: a feeder thread, a bounded window, one event loop.

Each asynchronous block pulls its upstream in a thread of its own, so that all blocks of a chain work at the same time;
finished records are yielded in the order in which they finish. A slot of the window is freed when its record has been
*taken* downstream: whatever the data's size, no more than a window of records is held by a block.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import AutoIFError, Unfinished

if TYPE_CHECKING:
    from .context import RunContext

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL = 0.1  # seconds after which a waiting thread looks whether its chain was told to stop
_GATHER = 0.01  # seconds for which what has ended waits for more: to wake a thread takes longer than what it then does


class Feeder(threading.Thread):
    """Pulls the upstream; `stopping` reaches every generator that this thread runs, however deep it waits."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__(target=target, name="autoif-feeder", daemon=True)
        self.stopping = threading.Event()


class Stopped(BaseException):  # no block's `except Exception` shall keep it
    """The chain below has gone: nothing that is still computed would be taken."""


def _stop_if_told() -> None:
    thread = threading.current_thread()
    if isinstance(thread, Feeder) and thread.stopping.is_set():
        raise Stopped


def stream(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Result]],
    context: RunContext,
    window: int,
    ordered: bool = False,
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, result) for every item, as they finish, or with `ordered` as they came.

    Errors of `work` and of the upstream are raised here. When this generator is closed or fails, the feeder ends, what
    is in flight is cancelled, and the upstream is closed by the thread that ran it. When the run is stopping, items on
    which no work has begun, or whose work ends unfinished, do not come out.
    """
    work_of = _InFlight(work, context.loop, gather=window // 16)
    upstream = iter(items)
    freed: SimpleQueue[int] = SimpleQueue()  # slots, on their way from the consumer to the feeder

    def feed() -> None:
        count, slots = 0, window
        try:
            for item in upstream:
                while not slots:
                    with contextlib.suppress(Empty):
                        slots += freed.get(timeout=_POLL)
                    _stop_if_told()
                _stop_if_told()
                if context.stopping:
                    context.cut_short()
                    continue
                slots -= 1
                work_of.begin(count, item)
                count += 1
            work_of.done.put(count)
        except BaseException as error:
            work_of.done.put(error)
        finally:
            close = getattr(upstream, "close", None)
            if close is not None:
                close()

    feeder = Feeder(feed)
    context.feeders.append(feeder)  # an error elsewhere in the chain may leave this generator suspended
    feeder.start()
    arrived: deque[tuple[int, Item, asyncio.Task[Result]]] = deque()
    finished: dict[int, tuple[Item, Result] | None] = {}
    received, expected, next_number, taken = 0, -1, 0, 0
    try:
        while received != expected:
            _stop_if_told()  # each time: what comes may all be rejected below, so that nobody else would notice
            if context.overdue:
                work_of.cancel()
            # To wake the feeder costs more than a slot: it is told of several, or of what there is before a wait.
            if taken > window // 16 or (taken and not arrived and work_of.done.empty()):
                freed.put(taken)
                taken = 0
            if not arrived:
                try:
                    message = work_of.done.get(timeout=_POLL)
                except Empty:
                    continue
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, int):
                    expected = message
                else:
                    arrived.extend(message)
                continue
            number, item, task = arrived.popleft()
            received += 1
            outcome: tuple[Item, Result] | None = None
            try:
                outcome = (item, task.result())
            except (asyncio.CancelledError, Unfinished):
                if not context.stopping:
                    raise AutoIFError("the work on a record was cancelled, and not by the run") from None
                context.cut_short()
            finished[number if ordered else next_number] = outcome
            while next_number in finished:
                if (ready := finished.pop(next_number)) is not None:
                    yield ready
                taken += 1
                next_number += 1
    finally:
        feeder.stopping.set()
        work_of.cancel()
        feeder.join()
        work_of.close()


class _InFlight(Generic[Item, Result]):
    """What one `stream` has on the event loop. Threads speak to the loop only when it does not know yet that there is
    something to do: to wake it takes longer than most of what it does."""

    def __init__(self, work: Callable[[Item], Awaitable[Result]], loop: asyncio.AbstractEventLoop, gather: int) -> None:
        self.done: SimpleQueue[list[tuple[int, Item, asyncio.Task[Result]]] | BaseException | int] = SimpleQueue()
        """(number, item, its task) as they end; the number of all items, or an error, from the feeder"""
        self._work = work
        self._loop = loop
        self._gather = gather
        self._new: deque[tuple[int, Item]] = deque()
        self._told = False
        self._closed = False
        self._tasks: set[asyncio.Task[Result]] = set()  # the loop's own, as is what follows
        self._ended: list[tuple[int, Item, asyncio.Task[Result]]] = []
        self._later: asyncio.TimerHandle | None = None

    def begin(self, number: int, item: Item) -> None:
        """Called by the feeder."""
        self._new.append((number, item))
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._begin_new)

    def _begin_new(self) -> None:
        self._told = False  # first: what comes from now on tells again
        while self._new:
            number, item = self._new.popleft()
            if not self._closed:
                task = self._loop.create_task(_await(self._work, item))
                self._tasks.add(task)
                task.add_done_callback(partial(self._end, number, item))

    def _end(self, number: int, item: Item, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # now asked for, should nobody take the result
        self._ended.append((number, item, task))
        if len(self._ended) >= self._gather or not self._tasks:
            self._hand_over()
        elif self._later is None:
            self._later = self._loop.call_later(_GATHER, self._hand_over)

    def _hand_over(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        ended, self._ended = self._ended, []
        self.done.put(ended)

    def cancel(self) -> None:
        """Cancels what has begun, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all has ended with it
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """Cancels all; nothing begins any more."""
        self._closed = True
        self.cancel()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _await(work: Callable[[Any], Awaitable[Result]], item: Any) -> Result:
    try:
        return await work(item)
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end the event loop, and all would wait for ever
        raise AutoIFError(f"the work on a record called for the end of the program: {error!r}") from error
