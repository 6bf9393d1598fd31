"""Streaming: bounded windows, errors that arrive once, and nothing left behind, however a chain ends."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document

from autoif_blocks.blocks.base import AsyncBlock
from autoif_blocks.blocks.kinds import Filter
from autoif_blocks.context import RunContext, RunSettings
from autoif_blocks.errors import AutoIFError, StopRun
from autoif_blocks.records import Record
from autoif_blocks.streaming import stream

OURS = "autoif-"


class Trouble(Exception):
    pass


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(OURS)]


def tasks(context: RunContext) -> int:
    """Tasks that are still on the event loop."""

    async def count() -> int:
        await asyncio.sleep(0.02)  # the time to be cancelled in
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), context.loop).result(5)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[RunContext]:
    """An open context; when a test is over, no thread is left."""
    opened = RunContext(RunSettings(str(tmp_path)))
    opened.open(0)
    yield opened
    opened.close(True)
    assert threads() == []


async def double(item: int) -> int:
    await asyncio.sleep(0.001 * (item % 7))
    return item * 2


class Gauge:
    """Work that knows how much of it was there at a time, done or not, and not yet taken."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds = seconds
        self.begun = self.running = self.most_running = self.cancelled = 0

    async def __call__(self, item: int) -> int:
        self.begun += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return item


# What comes out


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("window", [1, 2, 7, 1000])
def test_everything_comes_out_once(window: int, ordered: bool, context: RunContext) -> None:
    found = list(stream(range(60), double, context, window, ordered))
    assert sorted(found) == [(i, 2 * i) for i in range(60)]
    assert not ordered or found == sorted(found)


def test_what_is_ready_first_comes_first(context: RunContext) -> None:
    async def work(item: float) -> float:
        await asyncio.sleep(item)
        return item

    assert [item for item, _ in stream([0.3, 0.1, 0.2], work, context, 3)] == [0.1, 0.2, 0.3]
    assert [item for item, _ in stream([0.3, 0.1, 0.2], work, context, 3, ordered=True)] == [0.3, 0.1, 0.2]


@pytest.mark.parametrize("empty", [[], iter(()), (i for i in range(0))])
def test_nothing_in_nothing_out(empty: Iterable[int], context: RunContext) -> None:
    assert list(stream(empty, double, context, 4)) == []


# The window


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("window", [1, 5, 32])
def test_no_more_is_held_than_the_window(window: int, ordered: bool, context: RunContext) -> None:
    work = Gauge()
    for taken, _ in enumerate(stream(range(100), work, context, window, ordered)):
        time.sleep(0.005 * (taken < 10))  # time to begin what must not begin yet
        assert work.begun - taken <= window
    assert work.most_running == window


def test_a_slow_consumer_holds_the_upstream_back(context: RunContext) -> None:
    pulled = 0

    def pull(item: int) -> int:
        nonlocal pulled
        pulled += 1
        return item

    results = stream(map(pull, range(10_000)), Gauge(0), context, 8)
    for taken in range(1, 6):
        next(results)
        time.sleep(0.05)
        assert pulled <= taken + 8 + 1  # the window, and one that waits for its slot
    results.close()  # type: ignore[attr-defined]


def test_memory_is_bounded_by_windows(context: RunContext) -> None:
    alive = 0

    class Heavy:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def keep(item: Heavy) -> Heavy:
        await asyncio.sleep(0)
        return item

    first = stream((Heavy() for _ in range(2_000)), keep, context, 10)
    second = stream((item for item, _ in first), keep, context, 10)
    most = 0
    for _ in second:
        most = max(most, alive)
    assert most <= 30


# Errors


def failing_upstream(at: int) -> Iterator[int]:
    yield from range(at)
    raise Trouble("upstream")


def failing_work(at: int) -> Callable[[int], Awaitable[int]]:
    async def work(item: int) -> int:
        await asyncio.sleep(0.001)
        if item == at:
            raise Trouble("work")
        return item

    return work


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    ("items", "work"),
    [
        (lambda: failing_upstream(50), double),
        (lambda: failing_upstream(0), double),
        (lambda: range(99), failing_work(50)),
    ],
)
def test_an_error_is_raised_once_and_ends_all(items: Any, work: Any, ordered: bool, context: RunContext) -> None:
    results = stream(items(), work, context, 8, ordered)
    with pytest.raises(Trouble):
        list(results)
    assert list(results) == []
    assert tasks(context) == 0
    assert not any(feeder.is_alive() for feeder in context.feeders)


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt()])
def test_work_that_calls_for_the_end_of_the_program_does_not_end_the_loop(
    error: BaseException, context: RunContext
) -> None:
    async def work(item: int) -> int:
        if item == 3:
            raise error
        return item

    with pytest.raises(AutoIFError, match="end of the program"):
        list(stream(range(9), work, context, 4))
    assert len(list(stream(range(9), double, context, 4))) == 9  # the loop lives


def test_work_that_is_cancelled_from_elsewhere_is_no_end_of_the_data(context: RunContext) -> None:
    """Taken for one, it would lose the records that follow, in silence."""

    async def work(item: int) -> int:
        if item == 3:
            raise asyncio.CancelledError
        return item

    inner = stream(range(50), work, context, 4)
    with pytest.raises(AutoIFError, match="cancelled"):
        list(stream((item for item, _ in inner), double, context, 4))


def test_what_stops_the_upstream_s_thread_reaches_the_consumer(context: RunContext) -> None:
    def upstream() -> Iterator[int]:
        yield 1
        raise SystemExit("a custom block called exit()")

    with pytest.raises(SystemExit):
        list(stream(upstream(), double, context, 4))


# The end, early


def test_closing_ends_the_thread_cancels_the_tasks_and_closes_the_upstream_in_its_own_thread(
    context: RunContext,
) -> None:
    work = Gauge(10)
    ran, closed = [], []

    def upstream() -> Iterator[int]:
        ran.append(threading.current_thread())
        try:
            yield from range(1_000)
        finally:
            closed.append(threading.current_thread())

    async def quick_first(item: int) -> int:
        return item if item == 0 else await work(item)

    results = stream(upstream(), quick_first, context, 16)
    assert next(results) == (0, 0)
    time.sleep(0.05)
    began = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 0.5
    assert closed == ran != [threading.current_thread()]
    assert tasks(context) == 0
    assert work.cancelled == work.begun > 10
    assert not any(feeder.is_alive() for feeder in context.feeders)


def test_an_early_end_is_noticed_though_everything_is_rejected_on_the_way(context: RunContext) -> None:
    asked = 0

    async def work(item: int) -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.0005)
        return item

    inner = stream(range(20_000), work, context, 4)
    outer = stream((item for item, _ in inner if item == 0), double, context, 4)
    assert next(outer) == (0, 0)
    began = time.monotonic()
    outer.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 1
    assert asked < 5_000


def test_an_interrupted_consumer_leaves_nothing_running(context: RunContext) -> None:
    def consume() -> None:
        for number, _ in enumerate(stream(range(10_000), Gauge(), context, 8)):
            if number == 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert tasks(context) == 0
    assert not any(feeder.is_alive() for feeder in context.feeders)


# Chains of blocks

STAGES, COUNT, FAILS_AT = 6, 2_000, 60


class Stage(AsyncBlock):
    """Passes records on after a moment; fails at one record, or lets another block in between fail."""

    window = 32

    def __init__(self, number: int, fails: bool = False) -> None:
        super().__init__()
        self.number = number
        self.fails = fails

    async def handle_async(self, record: Record) -> Iterable[Record]:
        await asyncio.sleep(random.random() * 0.002)
        if self.fails and record["i"] == FAILS_AT:
            raise StopRun(f"at stage {self.number}")
        return [record.with_(**{f"s{self.number}": record["i"]})]


class Picky(Filter):
    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    def reject(self, record: Record) -> str | None:
        if self.fails and record["i"] == FAILS_AT:
            raise StopRun("at a filter")
        return None


def source(count: int = COUNT) -> Iterator[Document]:
    return (Record.new(i, i=i).document for i in range(count))


def chain(context: RunContext, failing: int = -1, picky: int = -1, count: int = COUNT) -> Iterator[Document]:
    documents = source(count)
    for number in range(STAGES):
        for position, block in enumerate([Stage(number, number == failing), Picky(number == picky)]):
            block.bind(f"stage {number}", position, context)
            documents = block.run(documents)
    return documents


def balanced(context: RunContext) -> bool:
    return all(meter.balanced for meter in context.meters.values())


def test_six_stages_pass_all_on(context: RunContext) -> None:
    began = time.monotonic()
    found = sorted(Record(document)["i"] for document in chain(context))
    assert found == list(range(COUNT))
    assert balanced(context)
    assert time.monotonic() - began < 10


def test_the_records_do_not_depend_on_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for window in (1, 64):
        monkeypatch.setattr(Stage, "window", window)
        context = RunContext(RunSettings(str(tmp_path / str(window))))
        context.open(0)
        results.append(sorted((Record(d).id, sorted(Record(d).items())) for d in chain(context, count=100)))
        context.close(True)
    assert results[0] == results[1]


def consume(documents: Iterator[Document], stop_at: int) -> None:
    for number, _ in enumerate(documents):
        if number == stop_at:
            raise StopRun("enough")


@pytest.mark.parametrize("stage", range(STAGES))
@pytest.mark.parametrize("how", ["stage fails", "filter fails", "closed early"])
def test_whichever_stage_fails_all_end_at_once(how: str, stage: int, tmp_path: Path) -> None:
    context = RunContext(RunSettings(str(tmp_path)))
    context.open(0)
    documents = chain(context, *((stage, -1) if how == "stage fails" else (-1, stage) if how == "filter fails" else ()))

    stop_at = 10 * stage if how == "closed early" else COUNT
    with pytest.raises(StopRun) as caught:
        consume(documents, stop_at)
    began = time.monotonic()
    context.close(False)  # while generators of the chain may be suspended
    assert time.monotonic() - began < 2
    assert threads() == []
    assert str(caught.value) == {"stage fails": f"at stage {stage}", "filter fails": "at a filter"}.get(how, "enough")
    del documents, caught
    gc.collect()  # what was suspended is finalised now, without its event loop
    assert threads() == []


def test_a_context_may_be_closed_over_a_suspended_chain(tmp_path: Path) -> None:
    context = RunContext(RunSettings(str(tmp_path)))
    context.open(0)
    documents = chain(context)
    next(documents)
    began = time.monotonic()
    context.close(False)
    assert time.monotonic() - began < 2
    assert threads() == []
    documents.close()  # type: ignore[attr-defined]


def test_a_chain_that_never_began_costs_nothing(context: RunContext) -> None:
    documents = chain(context)
    documents.close()  # type: ignore[attr-defined]
    assert context.feeders == []
