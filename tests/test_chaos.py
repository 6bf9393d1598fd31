"""A short form of `benchmarks/chaos.py`: each fault once, at a moment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
sys.path[:0] = [str(FOLDER)]

import chaos  # noqa: E402
from chaos import Outcome, compared  # noqa: E402

COMMAND = [sys.executable, str(FOLDER / "chaos.py")]


@pytest.mark.heavy
def test_every_fault_is_survived() -> None:
    """A seed whose moments lie in the middle of the runs, and two of them have two tasks."""
    done = subprocess.run(
        [*COMMAND, "--times", "1", "--pause", "2", "--jobs", "3", "--seed", "22389"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    print(done.stderr)
    assert done.returncode == 0, done.stdout
    head, _, *rows = done.stdout.splitlines()
    assert "tried | survived | lost records" in head
    assert len(rows) == 12
    unfit = ("| 0 | 0 | 0 | only root can mount a small disk |", "| 0 | 0 | 0 | no C compiler is here |")
    assert [row for row in rows if "| 1 | 1 | 0 |" not in row and not row.endswith(unfit)] == []


WHOLE = {"a": b"1\n2\n2\n", "b": b""}


@pytest.mark.parametrize(
    ("found", "lost", "others"),
    [
        (WHOLE, 0, ""),
        ({**WHOLE, "a": b"1\n2\n"}, 1, "other bytes in a"),
        ({**WHOLE, "a": b"2\n1\n2\n"}, 0, "other bytes in a"),
        ({**WHOLE, "c": b""}, 0, "other bytes in c"),
        ({"b": b""}, 3, "other bytes in a"),
    ],
)
def test_what_is_lost_is_counted(found: dict[str, bytes], lost: int, others: str) -> None:
    assert compared(WHOLE, found) == (lost, others)


def test_a_loss_is_told_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [
        Outcome("one", 1, ["at 1 s"], "went on"), Outcome("one", 2, [], "said why"), Outcome("two", 1, [], unfit="no"),
    ]  # fmt: skip
    monkeypatch.setattr(chaos, "trials", lambda *given: iter(outcomes))
    monkeypatch.setattr(sys, "argv", ["chaos.py"])
    assert chaos.main(chaos.arguments()) == 0
    outcomes.append(Outcome("two", 2, [], "went on", 3, "other bytes in a"))
    assert chaos.main(chaos.arguments()) == 1
    said = capsys.readouterr()
    assert "| one | 2 | 2 | 0 | went on 1 x, said why 1 x |\n| two | 1 | 0 | 3 | went on 1 x |\n" in said.out
    assert "LOST two 2/4: other bytes in a\n" in said.err
