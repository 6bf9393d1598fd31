"""How a block keeps many records in flight: a feeder thread, a bounded window, one event loop.

Each asynchronous block pulls its upstream in a thread of its own, so that all blocks of a chain work at the same time;
finished records are yielded in the order in which they finish. A slot of the window is freed when its record has been
*taken* downstream: whatever the data's size, no more than a window of records is held by a block.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import AutoIFError, Unfinished

if TYPE_CHECKING:
    from .context import RunContext

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL = 0.1  # seconds after which a waiting thread looks whether its chain was told to stop


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
    loop = context.loop
    done: SimpleQueue[tuple[int, Item, Future[Result]] | BaseException | int] = SimpleQueue()
    slots = threading.Semaphore(window)
    in_flight: dict[int, Future[Result]] = {}
    upstream = iter(items)

    def feed() -> None:
        count = 0
        try:
            for item in upstream:
                while not slots.acquire(timeout=_POLL):
                    _stop_if_told()
                _stop_if_told()
                if context.stopping:
                    context.cut_short()
                    slots.release()
                    continue
                future = asyncio.run_coroutine_threadsafe(_await(work, item), loop)
                in_flight[count] = future
                # Bound now: by the time the future is done, the loop variables are another item's.
                future.add_done_callback(lambda f, number=count, item=item: done.put((number, item, f)))  # type: ignore[misc]
                count += 1
            done.put(count)
        except BaseException as error:
            done.put(error)
        finally:
            close = getattr(upstream, "close", None)
            if close is not None:
                close()

    feeder = Feeder(feed)
    context.feeders.append(feeder)  # an error elsewhere in the chain may leave this generator suspended
    feeder.start()
    finished: dict[int, tuple[Item, Result] | None] = {}
    received, expected, next_number = 0, -1, 0
    try:
        while received != expected:
            _stop_if_told()  # each time: what comes may all be rejected below, so that nobody else would notice
            if context.overdue:
                _cancel(in_flight)
            try:
                message = done.get(timeout=_POLL)
            except Empty:
                continue
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, int):
                expected = message
                continue
            number, item, future = message
            del in_flight[number]
            received += 1
            outcome: tuple[Item, Result] | None = None
            try:
                outcome = (item, future.result())
            except (CancelledError, Unfinished):
                if not context.stopping:
                    raise AutoIFError("the work on a record was cancelled, and not by the run") from None
                context.cut_short()
            if not ordered:
                if outcome is not None:
                    yield outcome
                slots.release()
                continue
            finished[number] = outcome
            while next_number in finished:
                if (ready := finished.pop(next_number)) is not None:
                    yield ready
                slots.release()
                next_number += 1
    finally:
        feeder.stopping.set()
        _cancel(in_flight)
        feeder.join()
        _cancel(in_flight)  # what it had just begun


def _cancel(futures: dict[int, Future[Any]]) -> None:
    for future in list(futures.values()):
        future.cancel()


async def _await(work: Callable[[Any], Awaitable[Result]], item: Any) -> Result:
    try:
        return await work(item)
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end the event loop, and all would wait for ever
        raise AutoIFError(f"the work on a record called for the end of the program: {error!r}") from error
