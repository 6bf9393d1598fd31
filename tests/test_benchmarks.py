"""The benchmarks keep running, and the simulated scheduler that they compare with is right. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]

from bench_peers import RUNS, Unable, install, is_complete  # noqa: E402
from schedule import Request, bound, greedy  # noqa: E402
from soak import soak  # noqa: E402


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


def test_a_driver_runs_without_this_project() -> None:
    """It has only what its own environment holds."""
    for name in {run.partition("+")[0] for run in RUNS}:
        code = (FOLDER / "peers" / f"peer_{name}.py").read_text()
        compile(code, name, "exec")
        assert ("autoif_blocks" in code) == (name == "ours")


@pytest.mark.parametrize(
    ("change", "prompts", "complete"),
    [
        ({}, {(1, 7): ["more: one \\n \\u00e9", "other"], (2, 7): ["sum: two"]}, True),
        ({}, {(1, 7): ["more: one"], (2, 7): ["sum: two"]}, False),  # another answer than the row's
        ({}, {(1, 7): ["more: one \\n \\u00e9"], (2, 8): ["sum: two"]}, False),  # of another record
        ({"c": ""}, {(1, 7): ["more: one \\n \\u00e9"], (2, 7): ["sum: two"]}, False),
        ({"c": None}, {(1, 7): ["more: one \\n \\u00e9"], (2, 7): ["sum: two"]}, False),
    ],
)
def test_a_record_counts_only_if_its_steps_were_chained(
    change: dict[str, str], prompts: dict[tuple[int, int], list[str]], complete: bool
) -> None:
    row = {"number": "7", "a": "one \n é", "b": "two", "c": "three"}
    assert is_complete(row | change, prompts) == complete


def test_what_cannot_be_installed_is_said(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('ERROR: no version of it\\nhint: look')"]
    works = [sys.executable, "-c", ""]
    with pytest.raises(Unable, match="not installed: ERROR: no version of it"):
        install(tmp_path, ["it==1"], works, fails)
    install(tmp_path, ["it==1"], works)
    install(tmp_path, ["it==1"], fails)  # it is there: nothing is run
    with pytest.raises(Unable):
        install(tmp_path, ["it==2"], fails)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("bench_client.py 200", ["raw aiohttp", "pipeline step, cache on", "replay, n = 8"]),
        ("bench_memory.py 50 200", ["200 records: peak", "ratio"]),
        ("bench_pipeline.py --latency 0.01 --queries 1", ["ten steps", "greedy / wall", "ms a request"]),
        ("bench_rewards.py --seconds 0.3", ["rewards a second", "constraints", "load"]),
        ("bench_pipeline.py --latency 0.01 --chain 40", ["40 records, 120 requests", "bound / wall"]),
        (
            "precision.py --level usual misread --recipes strong-repair --completions 3",
            ["| usual | none |", "| usual | strong-repair |", "| misread | strong-repair |"],
        ),
        (
            "peers/bench_peers.py --latency 0.01 --records 20 --only bare ours",
            ["| bare |", "| ours |", "| 0 | 60 |\n| o"],
        ),
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


@pytest.mark.heavy
def test_a_soak_sees_a_run_and_leaves_nothing_behind() -> None:
    *during, end = soak(1_000, 0.0)
    assert end.responses > 500
    assert end.processes == 0
    assert max(sample.processes for sample in during) > 2
    assert 50 < max(sample.megabytes for sample in during) < 1_000
    assert sorted(sample.responses for sample in during) == [sample.responses for sample in during]
