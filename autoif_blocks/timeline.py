"""How a run went over time: a row every little while in `logs/timeline.jsonl`, for the report.

A row holds what `RunState` has counted so far in this command. The pauses between rows grow with the run, so that a day
leaves some two thousand rows and a minute sixty.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .accounting import SPENT, total
from .state import RunState
from .stopping import every

FILE = "logs/timeline.jsonl"
_TICK = 1.0  # seconds
_SHARE = 1 / 300  # of the time that has passed: the pause between two rows


@contextlib.contextmanager
def recording(state: RunState, output: Path, began: float) -> Iterator[None]:
    """Writes rows while the run goes, and one at its end. A disk that takes no more does not end a run for it."""
    path = output / FILE
    day, start = time.time(), time.monotonic()  # the time of day may be set meanwhile
    due = start

    def note() -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + max(_TICK * 0.9, (now - start) * _SHARE)
            steps = state.read()
            whole = total([meter for step in steps for _, meter in step.blocks]).to_dict()
            spent = {name: round(whole[name], 3) for name in SPENT}
            row = {"began": round(began, 2), "at": round(day + now - start, 2), **spent}
            row["out"] = steps[-1].whole.given if steps else 0
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    note()
    with every(_TICK, note, "autoif-timeline"):
        yield
    due = 0
    note()


def rows_since(output: Path, since: float) -> list[dict[str, Any]]:
    """The rows of the commands that began at `since` (seconds since 1970) or later; a torn one is left out."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError), (output / FILE).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                if row["began"] >= since and all(isinstance(row[name], (int, float)) for name in ("at", *SPENT, "out")):
                    rows.append(row)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return rows
