"""A hundred thousand executions, one function in a hundred hostile: nothing leaks or drifts or slows down."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from pathlib import Path

import pytest
from conftest import children
from test_sandbox_attacks import ATTACKS
from test_sandbox_corpus import FUNCTIONS, inputs, run_plainly

from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig

CONFIG = SandboxConfig(call_timeout=0.5, function_timeout=1.0, memory_mb=128)


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


async def run(sandbox: Sandbox, count: int, share_hostile: float) -> tuple[float, set[int]]:
    """Seconds it took, and the processes that were seen as workers."""
    chance = random.Random(1)
    texts = inputs(20)
    expected = {code: run_plainly(code, texts) for code in FUNCTIONS}
    hostile = itertools.cycle(chance.sample(sorted(ATTACKS), len(ATTACKS)))
    codes = itertools.cycle(FUNCTIONS)
    jobs = [next(hostile) if chance.random() < share_hostile else None for _ in range(count)]
    queue = iter(jobs)

    async def caller() -> None:
        for name in queue:
            if name is None:
                code = next(codes)
                assert await sandbox.execute(code, texts) == expected[code]
            else:
                outcomes = await sandbox.execute(ATTACKS[name][1], texts)
                assert Outcome.TRUE not in outcomes, name

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(4 * CONFIG.worker_count())))
    return time.perf_counter() - start, set(children(os.getpid()))


def soak(count: int) -> tuple[float, float]:
    files = len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> tuple[float, float]:
        async with Sandbox(CONFIG) as sandbox:
            _, workers = await run(sandbox, count // 10, 0.01)  # caches fill
            before = memory_mb()
            benign, _ = await run(sandbox, count, 0.0)
            mixed, workers_after = await run(sandbox, count, 0.01)
            assert memory_mb() - before < 8
            assert workers_after == workers, "a worker died"
            assert all(children(worker) == [] for worker in workers)
        return benign, mixed

    times = asyncio.run(main())
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert children(os.getpid()) == []
    return times


def test_a_short_soak() -> None:
    soak(300)


@pytest.mark.heavy
@pytest.mark.long
def test_a_long_soak() -> None:
    benign, mixed = soak(5000)
    assert mixed < 2 * benign, f"{mixed:.1f} s with hostile functions, {benign:.1f} s without"
