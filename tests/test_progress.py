"""The final table: what it holds, in terminals of every width and where there is none."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from conftest import AUTOIF, SMALL
from rich.console import Console

from autoif_blocks.accounting import SPENT
from autoif_blocks.progress import ConsoleListener, compact, funnel


def step(number: int, name: str, **counts: Any) -> dict[str, Any]:
    row = {**dict.fromkeys(SPENT, 0), "in": 0, "out": 0, "p50": 0.0, "p99": 0.0, "dropped": {}}
    return {"number": number, "name": name, "file": f"{name}.jsonl", **row, **counts}


STEPS = [
    step(1, "read", out=99_999),
    step(
        10, "verification_funcs_cases", **{"in": 1_234_567}, out=999_499, requests=1_300_000, retries=123_456,
        hits=88_000, prompt_tokens=4_560_000, completion_tokens=999_000_000, cost=1234.5, p50=12.345, p99=599.9,
        busy=360_000.0, dropped={"cut_off": 7, "[b]request_failed[/b]": 228_061, "a" * 60: 1},
    ),
    step(11, "replayed", **{"in": 40}, out=40, hits=40),
]  # fmt: skip
RESULT = {
    "steps": STEPS, "seconds": 75.0, "records": 40,
    "totals": {**dict.fromkeys(SPENT, 0), "requests": 2},
    "all_commands": {**dict.fromkeys(SPENT, 0), "requests": 5, "cost": 0.5, "commands": 3, "seconds": 4000.0},
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 99, 100, 120, 200])
@pytest.mark.parametrize("priced", [True, False])
def test_the_table_fits(width: int, priced: bool) -> None:
    result = {"steps": [{**row, "cost": row["cost"] if priced else 0.0} for row in STEPS]}
    head, *lines = funnel(result, width)
    table = [head, *lines[:3]]
    assert max(map(len, table)) <= width
    assert ("cost" in head) == priced
    assert head.split()[:3] == ["step", "in", "out"]
    assert (head.split()[3:7]) == (
        ["dropped", "requests", "retries", "hits"] if width >= 100 else ["drop", "asked", "again", "hits"]
    )
    assert lines[1].split()[2:] == [
        "1.23M", "999k", "228k", "1.3M", "123k", "88000", "1G",
        *(["1234.50"] if priced else []), "12s", "600s", "100h",
    ]  # fmt: skip
    assert lines[2].split()[1:] == ["replayed", "40", "40", "0", "0", "0", "40", "0", *(["0.00"] if priced else [])]
    assert lines[3].endswith(f"dropped: [b]request_failed[/b] 228061, cut_off 7, {'a' * 60} 1")


SHORT = [
    (0, "0"), (99_999, "99999"), (100_000, "100k"), (999_499, "999k"), (999_500, "1M"), (4_560_000, "4.56M"),
    (123_456_789, "123M"), (1_230_000_000, "1.23G"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "text"), SHORT)
def test_numbers_are_short(number: int, text: str) -> None:
    assert compact(number) == text


def test_the_end_of_a_run_tells_of_all_its_commands() -> None:
    listener = ConsoleListener()
    listener.console = Console(file=(file := io.StringIO()), width=80)
    listener._place = "out"
    listener.finished(RESULT)
    said = file.getvalue().splitlines()
    assert said[-2].startswith("40 records in out/replayed.jsonl   1 min 15 s, 2 requests, 0 completions")
    assert said[-1].startswith("over all 3 commands: 1 h 06 min, 5 requests")
    assert said[-1].endswith("cost 0.50")
    assert "\x1b" not in file.getvalue()
    quiet = ConsoleListener(quiet=True)
    quiet.console = Console(file=(file := io.StringIO()))
    quiet.finished(RESULT)
    assert file.getvalue() == ""


def test_a_real_run_ends_with_the_table(tmp_path: Any) -> None:
    command = [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *SMALL, "--end-step", "2"]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("step"))
    assert lines[at].split() == [
        "step", "in", "out", "dropped", "requests", "retries", "hits", "tokens", "p50", "p99", "busy",
    ]  # fmt: skip
    assert lines[at + 2].split()[:2] == ["2", "verification_funcs_cases"]
    assert "\x1b" not in done.stderr
