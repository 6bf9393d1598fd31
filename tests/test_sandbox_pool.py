"""The parent's side of the sandbox, and what a worker reads of its children: numbers, bounds, orders, lost workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sandbox import returns, until, with_sandbox, workers_of

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig, child, doctor, jobs, kernel, worker
from autoif_blocks.sandbox.policy import (
    DONE,
    MOST_JOBS,
    PHASE_ALONE,
    PHASE_LOADED,
    PHASE_LOADING,
    PHASE_NEW,
    STARVED_RETRIES,
    WALL_FACTOR,
    imports_any,
    pack,
    unpack,
)
from autoif_blocks.sandbox.zygote import Settings, Zygote

O = Outcome  # noqa: E741


def test_each_outcome_has_a_byte_of_its_own() -> None:
    """Zero is a call that has not ended."""
    names = "TRUE FALSE NONE TRUTHY FALSY EXCEPTION TIMEOUT MEMORY CRASH EXIT LOAD_ERROR".split()  # noqa: SIM905
    assert {name: int(outcome) for name, outcome in Outcome.__members__.items()} == dict(
        zip(names, range(1, 12), strict=True)
    )


# The configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"call_timeout": 3600.5, "function_timeout": 9000}, r"call_timeout must be in \(0, 3600\]"),
        ({"call_timeout": -1}, "call_timeout must be"),
        ({"function_timeout": 86400.5}, "function_timeout must lie between"),
        ({"function_timeout": 0.5}, "function_timeout must lie between"),
        ({"memory_mb": 15}, r"memory_mb must be in \[16, 1048576\]"),
        ({"memory_mb": 2**20 + 1}, "memory_mb must be"),
        ({"preload": ["light", 5]}, "preload must be a list"),
        ({"call_timeout": 3600, "function_timeout": 3600, "memory_mb": 16}, None),
        ({"call_timeout": 0.001, "function_timeout": 86400, "memory_mb": 2**20, "workers": 1}, None),
    ],
)
def test_options_have_bounds(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert SandboxConfig(**options).isolation == "auto"
    else:
        with pytest.raises(ValueError, match=message):
            SandboxConfig(**options)


def test_a_worker_for_each_core_unless_told() -> None:
    assert SandboxConfig().worker_count() == len(os.sched_getaffinity(0))
    assert SandboxConfig(workers=3).worker_count() == 3


@pytest.mark.parametrize(
    ("preload", "modules"),
    [(("light",), ()), ((), ()), (("b", "light", "a", "b"), ("b", "a")), (("x", "heavy"), ("x", "json"))],
)
def test_modules_beyond_light(preload: tuple[str, ...], modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoif_blocks.sandbox.policy.HEAVY", ("no_such_module", "json"))
    assert SandboxConfig(preload=preload).heavy_modules() == modules


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import numpy", True), ("import os, numpy as np", True), ("from numpy.linalg import norm", True),
        ("def f():\n    import numpy", True), ("import numpy_two", False), ("from os import numpy", False),
        ("x = 'import numpy'", False), ("# import numpy", False), ("import os  # numpy", False), ("", False),
    ],
)  # fmt: skip
def test_what_a_function_imports_is_guessed(code: str, found: bool) -> None:
    assert imports_any(code, ("nltk.corpus", "numpy")) == found


@pytest.mark.parametrize("texts", [[], ["a"], ["", "\0", "\ud800é"], ["x" * 1000, "y"] * 3])
def test_what_is_packed_can_be_unpacked(texts: list[str]) -> None:
    data = pack("code \udfff", texts)
    assert data[: 1 + len(texts)] == bytes(1 + len(texts))
    assert unpack(data, len(texts)) == ("code \udfff", texts)


def test_it_runs_only_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(SandboxUnavailable, match=f"only on Linux, and this is {platform}"):
            with_sandbox(lambda sandbox: sandbox.execute(returns("True"), ["a"]))
        assert [(layer.name, layer.ok) for layer in doctor()] == [("linux", False)]


def test_one_that_does_not_start_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "START_SECONDS", 0.001)
    sandbox = Sandbox(SandboxConfig(workers=2))

    async def main() -> None:
        with pytest.raises(SandboxUnavailable, match="could not start: no sign of life within 0 s"):
            await sandbox.__aenter__()
        assert workers_of() == []
        with pytest.raises(SandboxUnavailable, match="not open"):
            await sandbox.execute(returns("True"), ["a"])

    asyncio.run(main())


# Functions that are asked for together


def test_many_functions_together_are_answered_in_their_order() -> None:
    """More than one message holds, and some without inputs."""
    functions = [(returns(f"response == '{n}'"), [str(k) for k in range(n % 5)]) for n in range(3 * MOST_JOBS + 1)]

    async def use(sandbox: Sandbox) -> None:
        async with asyncio.timeout(60):
            found = await sandbox.execute_all(functions)
        assert found == [[O.TRUE if k == n else O.FALSE for k in range(n % 5)] for n in range(len(functions))]
        assert await sandbox.execute_all([]) == []

    with_sandbox(use)


def test_who_is_given_up_takes_no_others_along() -> None:
    """Of several that wait for their turn, the one whose caller is gone, and neither earlier nor later ones."""

    async def use(sandbox: Sandbox) -> None:
        slow = "import time\ndef evaluate(response):\n    time.sleep(0.2)\n    return True"
        tasks = [asyncio.create_task(sandbox.execute(slow, ["a", "b"])) for _ in range(7)]
        await asyncio.sleep(0.1)
        tasks[4].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(4), asyncio.CancelledError)
        assert found == [[O.TRUE, O.TRUE]] * 6

    with_sandbox(use, SandboxConfig(workers=1))


# Workers that are lost


def test_a_worker_that_says_nothing_is_replaced() -> None:
    async def use(sandbox: Sandbox) -> None:
        (stopped,) = workers_of()
        os.kill(stopped, signal.SIGSTOP)
        sandbox._patience = 0.3
        asked = asyncio.create_task(sandbox.execute(returns("True"), ["a"]))
        await until(lambda: stopped not in workers_of())
        sandbox._patience = 60.0
        async with asyncio.timeout(60):
            assert await asked == [O.TRUE]

    with_sandbox(use, SandboxConfig(workers=1))


def test_what_two_workers_say_nothing_of_is_a_crash() -> None:
    async def use(sandbox: Sandbox) -> None:
        sandbox._patience = 0.4
        async with asyncio.timeout(60):
            assert await sandbox.execute("def evaluate(r):\n    while True: pass", ["a", "b"]) == [O.CRASH] * 2

    with_sandbox(use, SandboxConfig(workers=1, call_timeout=60, function_timeout=60))


@pytest.mark.parametrize(("call", "function"), [(0.1, 0.1), (1.0, 10.0), (60.0, 3600.0)])
def test_the_parent_is_more_patient_than_a_worker(call: float, function: float) -> None:
    """And not without end: all children that a starved function may have, and the start of a worker."""
    longest = (1 + STARVED_RETRIES) * WALL_FACTOR * (function + call)
    patience = Sandbox(SandboxConfig(call_timeout=call, function_timeout=function))._patience
    assert longest < patience < longest + 120


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
