"""What is read of a function's file and of a child from outside, and what a worker makes of it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_sandbox import returns

from autoif_blocks.sandbox import Outcome, child, jobs, kernel, worker
from autoif_blocks.sandbox.policy import DONE, PHASE_ALONE, PHASE_LOADED, PHASE_LOADING, PHASE_NEW, pack
from autoif_blocks.sandbox.zygote import Settings, Zygote

O = Outcome  # noqa: E741

# Files, as the parent and as a worker read them


@pytest.fixture
def job() -> Iterator[worker.Job]:
    async def make() -> worker.Job:
        return worker.Job(1, "code", ["a", "b", "c"], worker.Group(1))

    made = asyncio.run(make())
    made.open()
    yield made
    made.close()
    made.close()
    assert made.fd == -1


@pytest.mark.parametrize(
    ("written", "outcomes"),
    [
        (b"\1\2\3", [O.TRUE, O.FALSE, O.NONE]),
        (b"\1\0\0", [O.TRUE, O.CRASH, O.CRASH]),
        (b"\x0b\x0c\xff", [O.LOAD_ERROR, O.CRASH, O.CRASH]),  # no such outcome
    ],
)
def test_a_file_is_believed_as_far_as_it_makes_sense(job: worker.Job, written: bytes, outcomes: list[Outcome]) -> None:
    os.pwrite(job.fd, written, 1)
    assert job.outcomes() == outcomes
    job.fill(O.TIMEOUT)
    assert os.pread(job.fd, 3, 1) == written.replace(b"\0", bytes([O.TIMEOUT]))
    job.open()
    assert os.pread(job.fd, 4, 0) == bytes(4)
    os.ftruncate(job.fd, 2)
    assert job.outcomes() == [O.CRASH] * 3


@pytest.mark.parametrize(
    ("phase", "written", "at"),
    [
        (PHASE_NEW, b"\0\0\0", 0),
        (PHASE_LOADING, b"\1\0\0", 0),
        (PHASE_ALONE, b"\0\0\0", 0),
        (PHASE_LOADED, b"\0\0\0", 1),
        (PHASE_LOADED, b"\1\0\0", 2),
        (PHASE_LOADED, b"\1\2\0", 3),
        (PHASE_LOADED, b"\1\2\6", 4),
        (PHASE_LOADING, b"\1\2\6", 4),
    ],
)
def test_where_a_function_is(job: worker.Job, phase: int, written: bytes, at: int) -> None:
    os.pwrite(job.fd, bytes([phase]) + written, 0)
    seen = jobs.Job(1, job.fd, 3)
    assert (seen.phase(), seen.at()) == (phase, at)
    seen.renew()
    assert os.pread(job.fd, 4, 0) == bytes([PHASE_NEW]) + written
    seen.close_open(O.TIMEOUT)
    assert os.pread(job.fd, 4, 0)[1:] == written.replace(b"\0", bytes([O.TIMEOUT]))


def test_a_child_is_done_with_what_has_its_results_and_with_what_it_leaves_alone(job: worker.Job) -> None:
    others = [os.memfd_create("job") for _ in range(2)]
    try:
        queue = deque(jobs.Job(number, fd, 3) for number, fd in enumerate([job.fd, *others]))
        running = jobs.Child(os.getpid(), -1, queue)
        for fd, data in zip([job.fd, *others], (b"\1\1\1", b"\0\0\0", b"\1\0\0"), strict=True):
            os.pwrite(fd, bytes([PHASE_LOADED]) + data, 0)
        os.pwrite(others[0], bytes([PHASE_ALONE]), 0)
        running.cpu, running.waited = 0.5, 3.0
        first, second = running.passed()
        assert (first.number, first.alone, second.number, second.alone, second.phase()) == (0, False, 1, True, 0)
        assert (running.reached, [left.number for left in running.jobs]) == (2, [2])
        assert (running.started_cpu, running.since_cpu, running.at, running.waited) == (0.5, 0.5, 0, 0.0)
        running.waited = 1.0
        assert running.passed() == []
        assert (running.reached, running.waited) == (2, 1.0)
    finally:
        for fd in others:
            os.close(fd)


@pytest.mark.parametrize(
    ("computed", "elapsed", "waited"), [(0.0, 1.0, 1.0), (0.04, 1.0, 1.0), (0.06, 1.0, 0.0), (0.9, 1.0, 0.0), (0, 9, 2)]
)
def test_who_computes_does_not_wait(
    computed: float, elapsed: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = jobs.Child(os.getpid(), -1, deque(), cpu=5.0)
    monkeypatch.setattr(jobs, "cpu_time", lambda pid: 5.0 + computed)
    now = running.looked + elapsed
    running.measure(now, 2.0)
    assert (running.waited, running.cpu, running.looked) == (pytest.approx(waited), 5.0 + computed, now)


def test_the_processor_time_of_a_process_is_read_from_outside() -> None:
    assert abs(jobs.cpu_time(os.getpid()) - time.process_time()) < 0.1


def test_a_worker_forgets_only_what_it_is_told(job: worker.Job) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        zygote = Zygote(Settings(-1, 0.4, 2.0, 128, "process"), theirs, kernel.Gate(sealed=False))
        assert zygote.tick == pytest.approx(0.1)
        assert zygote.cpu_seconds > 2.0 + zygote.load_timeout  # the watcher comes first
        zygote.waiting.extend(jobs.Job(number, os.dup(job.fd), 3) for number in range(5))
        zygote.forget(2)
        zygote.forget(7)
        assert [waiting.number for waiting in zygote.waiting] == [0, 1, 3, 4]
        assert zygote.done == [DONE.pack(2)]
        later = [zygote.waiting.pop(), zygote.waiting.pop()]
        later[0].given_up = True
        zygote.put_back(later[::-1])
        assert [waiting.number for waiting in zygote.waiting] == [3, 0, 1]
        assert zygote.done == [DONE.pack(2), DONE.pack(4)]
        for waiting in zygote.waiting:
            os.close(waiting.fd)


class Watched(NamedTuple):
    """A child at its second input, by default, when the watcher comes: all is well."""

    phase: int = PHASE_LOADED
    written: bytes = b"\1\0\0"
    at: int = 2
    computed: float = 0.3  # since it got there
    waited: float = 0.0  # before the last look
    spent: float = 0.0
    ago: float = 1.0  # that it started
    looked: float = 0.2
    given_up: bool = False


# And whether it is killed, whether that is for waiting, and whether its function has no more time.
WATCHED = {
    "all is well": (Watched(), False, False, False),
    "a call that computes": (Watched(computed=0.5), True, False, False),
    "a call that waits": (Watched(computed=0, waited=0.7), True, True, False),
    "a call that may wait on": (Watched(computed=0, waited=0.5), False, False, False),
    "loading": (Watched(PHASE_LOADING, b"\0\0\0", 0, computed=0.9), False, False, False),
    "loading for long": (Watched(PHASE_LOADING, b"\0\0\0", 0, computed=1.1), True, False, False),
    "waiting while it loads": (Watched(PHASE_LOADING, b"\0\0\0", 0, computed=0, waited=1.7), False, False, False),
    "waiting long while it loads": (Watched(PHASE_LOADING, b"\0\0\0", 0, computed=0, waited=1.9), True, True, False),
    "the function's time": (Watched(spent=1.8), True, False, True),
    "the function's time is not over": (Watched(spent=1.6), False, False, False),
    "the function's time by the clock": (Watched(ago=8.5), True, True, True),
    "not yet by the clock": (Watched(ago=7.5), False, False, False),
    "the machine stood still": (Watched(ago=8.5, looked=1.0), False, False, False),
    "given up": (Watched(given_up=True), True, True, True),
    "just looked at": (Watched(computed=0.9, looked=0.01), False, False, False),
    "gone on": (Watched(at=1, computed=0.9, waited=3.0), False, False, False),
    "done": (Watched(written=b"\1\1\1"), True, False, False),
}


@pytest.mark.parametrize("name", WATCHED)
def test_a_child_is_killed_in_time_and_not_before(name: str, job: worker.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, killed, idle, given_up = WATCHED[name]
    kills: list[int] = []
    monkeypatch.setattr(kernel.Gate, "kill", lambda gate, pid: kills.append(pid))
    monkeypatch.setattr(jobs, "cpu_time", lambda pid: 5.0 + seen.computed)
    os.pwrite(job.fd, bytes([seen.phase]) + seen.written, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        zygote = Zygote(Settings(-1, 0.4, 2.0, 128, "process"), theirs, kernel.Gate(sealed=False))
        now = time.monotonic()
        mine = jobs.Job(1, os.dup(job.fd), 3, started=now - seen.ago, spent=seen.spent, given_up=seen.given_up)
        watched = jobs.Child(12345, -1, deque([mine]), looked=now - seen.looked)
        watched.at, watched.waited = seen.at, seen.waited
        watched.started_cpu = watched.since_cpu = watched.cpu = 5.0
        zygote.children[-1] = watched
        zygote.watch()
    assert (kills, watched.killed) == ([12345] * killed, killed)
    assert (watched.idle, mine.given_up) == (idle, given_up)
    if watched.jobs:
        os.close(mine.fd)


@pytest.mark.parametrize(
    ("code", "grown", "phases"),
    [
        (returns("True"), 0, [PHASE_LOADED, PHASE_LOADED]),
        (returns("True"), 16 << 20, [PHASE_LOADED, PHASE_LOADED]),
        (returns("True"), (16 << 20) + 1, [PHASE_LOADED, PHASE_NEW]),
        ("def evaluate(r): raise MemoryError", 0, [PHASE_LOADED, PHASE_NEW]),
        ("import os\n" + returns("True"), 0, [PHASE_ALONE, PHASE_LOADED]),
        ("no syntax", 0, [PHASE_ALONE, PHASE_LOADED]),
    ],
)
def test_a_child_ends_before_the_next_function_lacks_memory(
    code: str, grown: int, phases: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([5, 5 + grown, 5 + grown])
    monkeypatch.setattr(child, "_peak_memory", lambda: next(peaks))
    files = [os.memfd_create("job") for _ in range(2)]
    try:
        for fd, text in zip(files, (code, returns("True")), strict=True):
            os.pwrite(fd, pack(text, ["a", "b"]), 0)
        child._run_dull([(fd, 2) for fd in files])
        assert [os.pread(fd, 1, 0)[0] for fd in files] == phases
    finally:
        sys.modules.pop("verification_function", None)
        for fd in files:
            os.close(fd)


def test_peak_memory_is_in_bytes() -> None:
    whole = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert 0.9 * whole < child._peak_memory() < 20 * whole
