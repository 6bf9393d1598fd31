"""Rewards a second: what `Rewards` takes for one, beside the same functions run with plain `exec` in this process.

    python tests/benchmarks/bench_rewards.py [--seconds 3] [--callers 64] [--workers 0]

Constraints are those of `sample_data/verified_instructions.jsonl`, four functions each, and responses their test cases;
`constraints` is how many a prompt has. `plain` is one process that has compiled every function once and lets it do what
it likes, times the number of workers: the most that this machine could do without any protection. `CPU ms` is the
processor's time for a reward, the sandbox's processes included; a core does a thousand by it in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from autoif_blocks.rewards import Rewards, constraints_of, reward_of  # noqa: E402
from autoif_blocks.sandbox import Outcome, SandboxConfig  # noqa: E402


def prompts(constraints: int) -> list[tuple[str, str]]:
    """Pairs of a ground truth and a response, drawn alike every time."""
    lines = (ROOT / "sample_data" / "verified_instructions.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines]
    rng = random.Random(0)
    drawn = []
    for _ in range(500):
        chosen = rng.sample(known, constraints)
        rows = [{"instruction": row["instruction"], "functions": row["functions"]} for row in chosen]
        drawn.append((json.dumps(rows), rng.choice(rng.choice(chosen)["cases"])["input"]))
    return drawn


def plain_rate(work: list[tuple[str, str]], seconds: float) -> tuple[float, float]:
    """Rewards a second, and the mean reward."""
    known: dict[str, Callable[[str], object]] = {}
    found: list[float] = []
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or len(found) < len(work):
        truth, response = work[len(found) % len(work)]
        constraints = constraints_of(truth)
        runs = []
        for code in itertools.chain.from_iterable(constraint.functions for constraint in constraints):
            if code not in known:
                space: dict[str, Callable[[str], object]] = {}
                exec(compile(code, "plain", "exec", dont_inherit=True), space)  # noqa: S102
                known[code] = space["evaluate"]
            runs.append([Outcome.TRUE if known[code](response) else Outcome.FALSE])
        found.append(reward_of(constraints, runs))
    return len(found) / elapsed, statistics.fmean(found[: len(work)])


def spent(pid: int | str = "self") -> float:
    """Seconds of processor time of a process, of its children, and of theirs that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return own + sum(spent(child) for task in tasks for child in (task / "children").read_text().split())


async def sandbox_rate(
    rewards: Rewards, work: list[tuple[str, str]], seconds: float, callers: int
) -> tuple[float, float, list[float]]:
    """The same, and how long each took."""
    waiting: Iterator[int] = itertools.count()
    found: dict[int, float] = {}
    latencies: list[float] = []
    start = time.perf_counter()

    async def caller() -> None:
        while (began := time.perf_counter()) - start < seconds or len(found) < len(work):
            number = next(waiting)
            found[number] = await rewards.score(*work[number % len(work)])
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - start
    return len(found) / elapsed, statistics.fmean(found[n] for n in range(len(work))), latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    config = SandboxConfig(workers=options.workers, call_timeout=0.5, function_timeout=1.0)
    workers = config.worker_count()
    print(f"{workers} workers, {options.callers} callers; rewards a second")
    print(
        f"{'constraints':>11} {'plain':>8} {'sandbox':>8} {'of plain':>8} {'p50 ms':>7} {'p99 ms':>7} {'CPU ms':>7}"
        f" {'mean':>6}"
    )
    rewards = Rewards(config)
    for constraints in (1, 3, 5):
        work = prompts(constraints)
        rounds = []
        for _ in range(3):  # alternating, so that a noisy neighbour meets both
            unsafe, expected = plain_rate(work, options.seconds / 3)
            before = spent()
            safe, mean, latencies = asyncio.run(sandbox_rate(rewards, work, options.seconds / 3, options.callers))
            rounds.append((unsafe * workers, safe, latencies, (spent() - before) / len(latencies)))
            assert abs(mean - expected) < 1e-9, "the sandbox gives the verdicts that plain runs give"
        unsafe, safe, _, cost = (statistics.median(r[k] for r in rounds) for k in (0, 1, 1, 3))  # type: ignore[misc]
        waited = sorted(itertools.chain.from_iterable(r[2] for r in rounds))
        p50, p99 = (1e3 * waited[len(waited) * part // 100] for part in (50, 99))
        print(
            f"{constraints:>11} {unsafe:>8.0f} {safe:>8.0f} {safe / unsafe:>8.2f} {p50:>7.1f} {p99:>7.1f}"
            f" {1e3 * cost:>7.2f} {mean:>6.2f}",
            flush=True,
        )
    rewards.close()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
