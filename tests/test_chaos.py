"""A short form of `benchmarks/chaos.py`: each fault once, at a moment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).parent / "benchmarks" / "chaos.py")]
ROW = "tried | survived | lost records"


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_every_fault_is_survived() -> None:
    """Another seed each time would find more, and what fails today must fail tomorrow."""
    done = subprocess.run(
        [*COMMAND, "--times", "1", "--pause", "2", "--jobs", "2", "--seed", "8"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    print(done.stderr)
    assert done.returncode == 0, done.stdout
    head, _, *rows = done.stdout.splitlines()
    assert ROW in head
    assert len(rows) == 12
    assert [row for row in rows if "| 1 | 1 | 0 |" not in row] == []


@pytest.mark.heavy
def test_what_is_lost_is_told(tmp_path: Path) -> None:
    """Where the results were not the same, the command would say so and fail."""
    lost = (
        "import sys, chaos\n"
        "real = chaos.undisturbed\n"
        "def more(url):\n"
        "    whole = real(url)\n"
        "    whole.files['sft_data.jsonl'] += b'{}\\n'\n"
        "    return whole\n"
        "chaos.undisturbed = more\n"
        "sys.argv[1:] = ['--times', '1', 'kill -9 the run']\n"
        "sys.exit(chaos.main(chaos.arguments()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", lost], env={**os.environ, "PYTHONPATH": str(Path(COMMAND[1]).parent)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "| 1 | 0 | 1 |" in done.stdout
    assert "other bytes in sft_data.jsonl" in done.stderr
