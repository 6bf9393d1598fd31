"""What a directory's results have cost over all commands that made them: stopped, continued, or of some steps only.

Results begin with a first command. They begin anew, from its first step on, with one that replaces those of another
recipe (`--overwrite`) or deletes what was there (`--no-resume`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accounting import SPENT
from .outputs import write_json
from .state import RunState, StepCounts, read_object

if TYPE_CHECKING:
    from .steps import Step

_FILE = "command.json"

Spent = dict[str, float]
"""requests, tokens, cost and the like, by name"""


@dataclass
class Series:
    """The commands before this one."""

    since: str
    """when the first began"""
    commands: int = 0
    seconds: float = 0.0
    spent: Spent = field(default_factory=dict)
    steps: dict[str, Spent] = field(default_factory=dict)

    @classmethod
    def before(
        cls, output: Path, work: Path, steps: Sequence[Step], first: int, identity: Mapping[str, Any], resume: bool,
        began: float,
    ) -> Series:  # fmt: skip
        """What the earlier commands of the same results have noted, one that was killed included."""
        killed = read_object(work / _FILE) or {}
        if resume and killed.get("identity") == identity:
            with contextlib.suppress(KeyError, TypeError):  # a file that is damaged tells nothing
                series = cls(**killed["before"])
                series._add_killed(work, steps, killed["began"])
                return series
        earlier = RunState.earlier(output) or {}
        whole = earlier.get("all_commands")
        same = resume and earlier.get("identity") == identity
        if not whole or (first == 1 and not same):
            return cls(datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"))
        rows = {row["name"]: row.get("all_commands") or {} for row in earlier["steps"] if same or row["number"] < first}
        spent = {name: whole.get(name) or 0 for name in SPENT}
        return cls(str(whole.get("since", "")), whole.get("commands") or 0, whole.get("seconds") or 0.0, spent, rows)

    @staticmethod
    def identity_before(work: Path) -> dict[str, Any] | None:
        """Of the command before, if it was killed or has failed."""
        found = (read_object(work / _FILE) or {}).get("identity")
        return found if isinstance(found, dict) else None

    def keep(self, work: Path, identity: Mapping[str, Any], began: float) -> None:
        """Leaves it to the next command, in case this one is killed. A work folder is gone when its run has ended well,
        and that of one that failed says the same as its `run.json`."""
        write_json(work / _FILE, {"identity": identity, "began": began, "before": asdict(self)})

    def of_step(self, row: Mapping[str, Any]) -> Spent:
        """What a step has cost over all commands; `row` is what this one has to add."""
        return _sum(self.steps.get(row["name"], {}), row)

    def of_all(self, totals: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The same of the whole, for `run.json`."""
        head = {"commands": self.commands + 1, "since": self.since, "seconds": round(self.seconds + seconds, 2)}
        return {**head, **_sum(self.spent, totals)}

    def _add_killed(self, work: Path, steps: Sequence[Step], began: float) -> None:
        counts: list[StepCounts] = RunState(work, steps).read()
        last = max((path.stat().st_mtime for path in work.glob("stage-*/*.status.json")), default=began)
        self.commands += 1
        self.seconds = round(self.seconds + last - began, 2)
        self._add(counts)

    def plus(self, counts: Sequence[StepCounts]) -> Series:
        """The same with what this command has paid so far; for `keep`, once the counts of that are no longer there."""
        series = replace(self, steps=dict(self.steps))
        series._add(counts)
        return series

    def _add(self, counts: Sequence[StepCounts]) -> None:
        for step in counts:
            row = step.whole.to_dict()
            self.steps[step.name] = _sum(self.steps.get(step.name, {}), row)
            self.spent = _sum(self.spent, row)


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> Spent:
    return {name: round(one.get(name, 0) + other.get(name, 0), 6) for name in SPENT}
