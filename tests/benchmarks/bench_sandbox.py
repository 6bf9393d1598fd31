"""Executions per second: the sandbox beside plain `exec` in the same run, on the corpus of the tests.

    python tests/benchmarks/bench_sandbox.py [--seconds 3] [--workers 2]

Two baselines, both unsafe and both warm (one process for all functions, so its `re` cache is full after the first
round): a process pool with `exec` and `signal.alarm` for each call, which is what people write, and the bare loop
without alarm or pool, times the number of workers, which is the most that this machine could do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from test_sandbox_corpus import FUNCTIONS, inputs, run_plainly  # noqa: E402

from autoif_blocks.sandbox import Sandbox, SandboxConfig  # noqa: E402


def quiet() -> None:
    sys.stdout = io.TextIOWrapper(Path("/dev/null").open("wb"))  # noqa: SIM115
    warnings.simplefilter("ignore")


def with_alarm(code: str, texts: list[str]) -> list[int]:
    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    outcomes: list[int] = []
    space: dict[str, object] = {}
    try:
        exec(compile(code, "unsafe", "exec", dont_inherit=True), space)  # noqa: S102
        evaluate = space["evaluate"]
        assert callable(evaluate)
    except Exception:
        return [0] * len(texts)
    for text in texts:
        signal.alarm(1)
        try:
            outcomes.append(int(bool(evaluate(text))))
        except Exception:
            outcomes.append(-1)
        finally:
            signal.alarm(0)
    return outcomes


def pool_rate(pool: ProcessPoolExecutor, workers: int, texts: list[str], seconds: float) -> float:
    pending = set()
    done = 0
    codes = itertools.cycle(FUNCTIONS)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        while len(pending) < workers * 4:
            pending.add(pool.submit(with_alarm, next(codes), texts))
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        done += len(finished)
    elapsed = time.perf_counter() - start
    wait(pending)
    return done / elapsed


def bare_rate(texts: list[str], seconds: float) -> float:
    done = 0
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for code in FUNCTIONS:
                run_plainly(code, texts)
                done += 1
    return done / (time.perf_counter() - start)


async def sandbox_rate(sandbox: Sandbox, texts: list[str], seconds: float, callers: int) -> tuple[float, list[float]]:
    codes = itertools.cycle(FUNCTIONS)
    latencies: list[float] = []
    start = time.perf_counter()

    async def caller() -> None:
        while (began := time.perf_counter()) - start < seconds:
            await sandbox.execute(next(codes), texts)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - start), latencies


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--isolation", default="auto")
    options = parser.parse_args()
    config = SandboxConfig(workers=options.workers, isolation=options.isolation)
    workers = config.worker_count()
    say: Callable[..., None] = print
    say(f"{len(FUNCTIONS)} functions, {workers} workers; functions a second (ratio to the pool)")
    say(
        f"{'inputs':>6} {'pool':>8} {'bare':>8} {'sandbox':>8} {'ratio':>6} {'of bare':>8} {'p50 ms':>7} {'p99 ms':>7}"
        f" {'alone':>7}"
    )
    with ProcessPoolExecutor(workers, initializer=quiet) as pool:
        async with Sandbox(config) as sandbox:
            for count in (1, 20, 100):
                texts = inputs(100)[-count:] if count == 100 else inputs(count + 1)[1:]
                rounds = []
                for _ in range(3):  # alternating, so that a noisy neighbour meets all of them
                    unsafe = pool_rate(pool, workers, texts, options.seconds / 3)
                    bare = bare_rate(texts, options.seconds / 3) * workers
                    safe, latencies = await sandbox_rate(sandbox, texts, options.seconds / 3, workers * 64)
                    rounds.append((unsafe, bare, safe, latencies))
                unsafe, bare, safe = (statistics.median(r[k] for r in rounds) for k in (0, 1, 2))  # type: ignore[misc]
                latencies = sorted(itertools.chain.from_iterable(r[3] for r in rounds))
                _, alone = await sandbox_rate(sandbox, texts, options.seconds / 6, 1)
                p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
                say(
                    f"{count:>6} {unsafe:>8.0f} {bare:>8.0f} {safe:>8.0f} {safe / unsafe:>6.2f} {safe / bare:>8.2f}"
                    f" {p50 * 1e3:>7.1f} {p99 * 1e3:>7.1f} {statistics.median(alone) * 1e3:>7.1f}"
                )


if __name__ == "__main__":
    asyncio.run(main())
