"""How far a run is: read from the small files that its tasks write, so that it can be watched from anywhere."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accounting import PASSING, SPENT, Meter, total
from .limits import ServerHealth

if TYPE_CHECKING:
    from .steps import Step

WORK = ".work"
"""in an output directory: where a run leaves what is not finished"""
STAGES = "stages.json"
"""in the work folder: the steps that are run, and how many tasks each stage has"""

# What counts of a round whose records the next one makes again.
_COSTS = {
    "requests", "retries", "completions", "prompt_tokens", "completion_tokens", "cost", "hedges", "busy", "latency",
}  # fmt: skip


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
        seconds = {name: round(whole.quantile(share), 4) for name, share in (("p50", 0.5), ("p99", 0.99))}
        head = {"name": self.name, "number": self.number, "file": self.file}
        return with_unfinished({**head, **whole.to_dict(), **seconds, "blocks": blocks}, came)


@dataclass(frozen=True)
class Look:
    """How a run is at one moment, summed over its tasks."""

    steps: list[StepCounts]
    round: list[StepCounts]
    """the same counts of this round alone, where a target asks for several"""
    servers: list[tuple[str, ServerHealth]]
    """with the names of their models, sorted; those that a task which is not finished has asked"""
    warning: tuple[float, str] | None
    """the last one: when, in seconds since 1970, and what"""


def _both(before: ServerHealth | None, one: ServerHealth) -> ServerHealth:
    """A server as two tasks see it together."""
    if before is None:
        return one
    return ServerHealth(
        one.url, before.in_flight + one.in_flight, before.limit + one.limit, before.ceiling + one.ceiling,
        max(before.resting_until, one.resting_until), before.dead or one.dead,
    )  # fmt: skip


def with_unfinished(row: dict[str, Any], came: int | None) -> dict[str, Any]:
    """A step's row in `run.json`, with as many records in as `came`, and those of them that did not get through."""
    row = {**row, "in": row["in"] if came is None else max(came, row["in"])}
    unfinished = row["in"] + row["created"] - row["out"] - sum(row["dropped"].values())
    return {**row, "unfinished": unfinished} if unfinished else row


def finished(status: Path) -> bool:
    """Whether the task that writes this status file has brought all its records to their end."""
    try:
        return json.loads(status.read_text())["finished"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


class RunState:
    """Reads the status files under a run's work folder."""

    def __init__(self, work: Path, steps: Sequence[Step]) -> None:
        self._work = work
        self._steps = steps
        self._paid: dict[tuple[str, int], Meter] = {}

    @property
    def paid(self) -> Meter:
        """What the run's earlier rounds have cost."""
        whole = Meter()
        for meter in self._paid.values():
            whole.add(meter)
        return whole

    def next_round(self) -> None:
        """Forgets what the tasks have done, but not what it cost."""
        for path in sorted(self._work.glob("stage-*/*.status.json")):
            for step, position, _, row in json.loads(path.read_text())["meters"]:
                costs = {key: value for key, value in row.items() if key in _COSTS}
                self._paid.setdefault((step, position), Meter()).add(Meter.from_dict(costs))
        for folder in self._work.glob("stage-*"):
            shutil.rmtree(folder)
        for path in self._work.glob("after-*.jsonl"):
            path.unlink()

    def read(self) -> list[StepCounts]:
        """The counts so far, summed over tasks, a step each."""
        return self.look().steps

    def look(self) -> Look:
        """The counts so far, and how things are at this moment."""
        servers: dict[tuple[str, str], ServerHealth] = {}
        warnings: list[tuple[float, str]] = []
        meters: dict[str, dict[int, tuple[str, Meter]]] = {step.name: {} for step in self._steps}
        for path in self._work.glob("stage-*/*.status.json"):
            try:
                told = json.loads(path.read_text())
            except (OSError, ValueError):  # replaced at this very moment: the next look sees it
                continue
            for model, *values in told.get("servers", []):
                server = ServerHealth(*values)
                servers[model, server.url] = _both(servers.get((model, server.url)), server)
            if told.get("warning"):
                warnings.append(tuple(told["warning"]))
            passing = told.get("passing") or [[0] * len(PASSING)] * len(told["meters"])  # of an earlier version
            for (step, position, block, row), now in zip(told["meters"], passing, strict=True):
                if step in meters:
                    one = Meter.from_dict(row)
                    for name, value in zip(PASSING, now, strict=True):
                        setattr(one, name, value)
                    meters[step].setdefault(position, (block, Meter()))[1].add(one)
        this_round = self._steps_of(deepcopy(meters)) if self._paid else None
        for (step, position), paid in list(self._paid.items()):
            if step in meters and position in meters[step]:
                meter = meters[step][position][1]
                meter.hits = max(0, meter.hits - paid.completions)  # this round replays what earlier ones have paid
                meter.add(paid)
        steps = self._steps_of(meters)
        known = [(model, health) for (model, _), health in sorted(servers.items())]
        return Look(steps, this_round or steps, known, max(warnings, default=None))

    def _steps_of(self, meters: dict[str, dict[int, tuple[str, Meter]]]) -> list[StepCounts]:
        return [
            StepCounts(step.name, step.number, step.file, [meters[step.name][at] for at in sorted(meters[step.name])])
            for step in self._steps
        ]

    @staticmethod
    def earlier(output_dir: Path) -> dict[str, Any] | None:
        """The `run.json` of a directory, if it holds one that makes sense: it may come from elsewhere, and names files
        that are read, and on demand deleted."""
        found = read_object(output_dir / "run.json")
        return found if found is not None and _makes_sense(found) else None


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file, or something else in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


_FILE = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.jsonl\Z")  # of a step, never one elsewhere
_NUMBERS = {*SPENT, "in", "out", "created", "unfinished", "hedges", "p50", "p99", "seconds", "commands", "wanted"}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "state": str, "failure": str, "started": str, "since": str, "name": str, "limit": int, "seed": int,
    **dict.fromkeys(("recipe", "identity", "target", "totals", "all_commands", "versions"), dict),
    **dict.fromkeys(("dropped", "discarded"), dict), "steps": list, "blocks": list,
}  # fmt: skip


def _makes_sense(run: dict[str, Any]) -> bool:
    """Whether what is there is of the kind that readers count on; all but the steps may be missing."""
    steps = run.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return False
    for step in steps:
        number, file = step.get("number"), step.get("file")
        named = isinstance(step.get("name"), str) and isinstance(file, str) and _FILE.match(file)
        if not named or not isinstance(number, int) or not all(map(_counts, (step.get("blocks") or [{}]))):
            return False
    parts = [
        run,
        *steps,
        *(part.get(key) or {} for part in (run, *steps) for key in ("totals", "all_commands", "target")),
    ]
    lost = [part.get(key) or {} for part in steps for key in ("dropped", "discarded")]
    return all(map(_counts, parts)) and all(_number(count) for counts in lost for count in counts.values())


def _counts(part: object) -> bool:
    return isinstance(part, dict) and all(
        value is None or (_number(value) if key in _NUMBERS else isinstance(value, _KINDS.get(key, object)))
        for key, value in part.items()
    )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e15 and not math.isnan(value)
