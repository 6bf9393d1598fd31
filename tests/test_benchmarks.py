"""The benchmarks keep running, and the simulated scheduler that they compare with is right. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(FOLDER))

from schedule import Request, bound, greedy  # noqa: E402


@pytest.mark.parametrize(
    ("requests", "slots", "lowest", "wall"),
    [
        ([], 4, 0.0, 0.0),
        ([Request(3.0)], 4, 3.0, 3.0),
        ([Request(1.0)] * 8, 4, 2.0, 2.0),
        ([Request(1.0), Request(1.0, 0, [0]), Request(1.0, 0, [1])], 4, 3.0, 3.0),  # a chain uses one slot
        ([Request(1.0), Request(1.0), Request(2.0, 0, [0, 1]), Request(1.0, 0, [2, 2])], 2, 4.0, 4.0),
        ([Request(1.0)] * 3 + [Request(3.0)], 2, 3.0, 4.0),  # it cannot know which will take long
        ([Request(3.0, 2), Request(1.0, 1), Request(1.0, 1, [1])], 1, 5.0, 5.0),
    ],
)
def test_a_greedy_scheduler_takes_no_longer_than_it_must(
    requests: list[Request], slots: int, lowest: float, wall: float
) -> None:
    assert bound(requests, slots) == lowest
    assert greedy(requests, slots) == wall


def test_the_earlier_step_is_served_first() -> None:
    late, early = [Request(1.0, 2)] * 2, [Request(1.0, 1), Request(1.0, 1, [2])]
    assert greedy([*late, *early], 2) == 2.0
    assert greedy([*late, *(Request(1.0, 3, request.after) for request in early)], 2) == 3.0


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("bench_client.py 200", ["raw aiohttp", "pipeline step, cache on", "replay, n = 8"]),
        ("bench_memory.py 50 200", ["200 records: peak", "ratio"]),
        ("bench_pipeline.py --latency 0.01 --queries 1", ["ten steps", "greedy / wall", "ms a request"]),
        ("bench_pipeline.py --latency 0.01 --chain 40", ["40 records, 120 requests", "bound / wall"]),
    ],
)
def test_a_benchmark_runs(command: str, told: list[str]) -> None:
    script, *options = command.split()
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(FOLDER / script), *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in told), done.stdout
