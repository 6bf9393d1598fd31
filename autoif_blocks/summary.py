"""`run.json`: what was run, what came of it, what it has cost, alone and with the commands before it."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .accounting import SPENT, Meter
from .growth import Rounds
from .outputs import write_json
from .series import Series
from .state import RunState, StepCounts, with_unfinished

if TYPE_CHECKING:
    from .recipe import Recipe
    from .steps import Step


@dataclass(frozen=True)
class Summary:
    """What is known of a command from its beginning."""

    recipe: Recipe
    steps: Sequence[Step]
    identity: Mapping[str, Any]
    began: float
    clock: float
    """what `time.monotonic()` said then: the time of day may be set meanwhile"""
    series: Series
    limit: int | None
    overwrite: bool
    rounds: Rounds | None
    after_growth: bool
    """whether it begins behind the step that a target makes larger"""

    def write(
        self, state: str, counts: Sequence[StepCounts], stay: Collection[str] = (), failure: str = ""
    ) -> dict[str, Any]:
        """Writes `run.json` and returns what it holds.

        Args:
            state: `completed`, `stopped` or `failed`.
            stay: the steps whose files are an earlier run's.
            failure: why it has not completed.
        """
        output = self.recipe.output_dir
        earlier = RunState.earlier(output) or {}
        totals = Meter()
        for step in counts:
            totals.add(step.whole)
        spent = {key: value for key, value in totals.to_dict().items() if key in SPENT}
        seconds = time.monotonic() - self.clock
        rows = self._rows_of(counts, state, stay, earlier)
        for step, row in zip(counts, rows, strict=True):
            row["all_commands"] = self.series.of_step(step.to_dict())
        result = {
            "state": state, **({"failure": failure} if failure else {}),
            "recipe": {"name": self.recipe.name, "path": str(self.recipe.path), "data": self.recipe.data},
            "identity": self.identity, "seed": self.recipe.seed,
            "start_step": self.steps[0].name, "end_step": self.steps[-1].name, "limit": self.limit,
            "started": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "records": rows[-1]["out"] if rows else 0,
            **self._target_of(earlier, rows),
            "totals": spent, "all_commands": self.series.of_all(spent, seconds),
            "steps": self._with_earlier_steps(rows, earlier),
            "versions": {
                "autoif-blocks": version("autoif-blocks"), "datatrove": version("datatrove"),
                "python": platform.python_version(),
            },
        }  # fmt: skip
        if counts and len(stay) == len(counts):  # all is as it was, but for what was spent
            result = {**earlier, **{key: result[key] for key in ("all_commands", "steps")}}
        write_json(output / "run.json", result)
        return result

    def _target_of(self, earlier: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.rounds is not None:
            return {"target": self.rounds.to_dict(rows[-1]["out"] if rows else 0)}
        return {"target": earlier["target"]} if self.after_growth and "target" in earlier else {}

    def _rows_of(
        self, counts: Sequence[StepCounts], state: str, stay: Collection[str], earlier: dict[str, Any]
    ) -> list[dict[str, Any]]:
        before = {row["name"]: row for row in earlier.get("steps", [])}
        rows: list[dict[str, Any]] = []
        for step in counts:
            came = rows[-1]["out"] if rows and state != "completed" else None
            rows.append(with_unfinished(before[step.name], came) if step.name in stay else step.to_dict(came))
        return rows

    def _with_earlier_steps(self, ours: list[dict[str, Any]], earlier: dict[str, Any]) -> list[dict[str, Any]]:
        """A run of steps 4-10 keeps what an earlier one of the same recipe noted of steps 1-3."""
        names = {step["name"] for step in ours}
        rest = [step for step in earlier.get("steps", []) if step["name"] not in names]
        if self.overwrite:
            rest = [step for step in rest if step["number"] < self.steps[0].number]
        return sorted(rest + ours, key=lambda step: int(step["number"]))
