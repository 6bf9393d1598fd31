"""How far a run is: read from the small files that its tasks write, so that it can be watched from anywhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accounting import Meter, total

if TYPE_CHECKING:
    from .steps import Step


@dataclass(frozen=True)
class StepCounts:
    """The counts of one step: of each of its blocks, and as a whole."""

    name: str
    number: int
    file: str
    blocks: list[tuple[str, Meter]]

    @property
    def whole(self) -> Meter:
        return total([meter for _, meter in self.blocks])

    @property
    def balanced(self) -> bool:
        """Whether every block's counts add up, and each block took what the one before it gave."""
        meters = [meter for _, meter in self.blocks]
        return all(meter.balanced for meter in meters) and all(
            before.given == after.taken for before, after in itertools.pairwise(meters)
        )

    def to_dict(self, came: int | None = None) -> dict[str, Any]:
        """Plain data for `run.json`. `came` is what the step before gave, some of which may not have been taken yet:
        of a run that was stopped, such records and those within the step count as `unfinished`."""
        blocks = [{"block": name, **meter.to_dict()} for name, meter in self.blocks]
        whole = self.whole
        row = whole.to_dict()
        row["in"] = row["in"] if came is None else max(came, row["in"])
        unfinished = row["in"] + row["created"] - row["out"] - sum(row["dropped"].values())
        more = {"unfinished": unfinished} if unfinished else {}
        seconds = {name: round(whole.quantile(share), 4) for name, share in (("p50", 0.5), ("p99", 0.99))}
        head = {"name": self.name, "number": self.number, "file": self.file}
        return {**head, **row, **more, **seconds, "blocks": blocks}


def finished(status: Path) -> bool:
    """Whether the task that writes this status file has brought all its records to their end."""
    try:
        return json.loads(status.read_text())["finished"] is True
    except (OSError, ValueError):
        return False


class RunState:
    """Reads the status files under a run's work folder."""

    def __init__(self, work: Path, steps: Sequence[Step]) -> None:
        self._work = work
        self._steps = steps

    def read(self) -> list[StepCounts]:
        """The counts so far, summed over tasks, a step each."""
        meters: dict[str, dict[int, tuple[str, Meter]]] = {step.name: {} for step in self._steps}
        for path in self._work.glob("stage-*/*.status.json"):
            try:
                rows = json.loads(path.read_text())["meters"]
            except (OSError, ValueError):  # replaced at this very moment: the next look sees it
                continue
            for step, position, block, row in rows:
                if step in meters:
                    known = meters[step].setdefault(position, (block, Meter()))
                    known[1].add(Meter.from_dict(row))
        return [
            StepCounts(step.name, step.number, step.file, [meters[step.name][at] for at in sorted(meters[step.name])])
            for step in self._steps
        ]

    @staticmethod
    def earlier(output_dir: Path) -> dict[str, Any] | None:
        """The `run.json` of a directory, if it holds one."""
        try:
            found = json.loads((output_dir / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None
