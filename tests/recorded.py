"""Runs as the estimator sees them, kept in a file: `python tests/recorded.py FILE RECIPE [KEY=VALUE …] [limit=N]`.

A row a second holds, for each block, the numbers in `NAMES`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoif_blocks.accounting import Meter
from autoif_blocks.progress import ConsoleListener
from autoif_blocks.progress.estimate import Layout
from autoif_blocks.progress.figures import layout
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.state import RunState, StepCounts
from autoif_blocks.stopping import every

NAMES = ("taken", "created", "given", "dropped", "requests", "hits", "completions", "busy", "in_flight", "worked")


class Recorder(ConsoleListener):
    """Keeps the looks at a run."""

    looks: list[Any]
    blocks: list[Any]

    @contextmanager
    def watching(self, state: RunState) -> Iterator[None]:
        began, self.looks, self.blocks = time.monotonic(), [], []
        self.layout = layout(self.recipe, self.steps, self.limit)

        def look() -> None:
            steps = state.look().round
            self.blocks = [(step.name, name) for step in steps for name, _ in step.blocks]
            meters = [meter for step in steps for _, meter in step.blocks]
            self.looks.append([round(time.monotonic() - began, 2), [_row(meter) for meter in meters]])

        with every(1.0, look, "recorder"):
            yield
        look()


def _row(meter: Meter) -> list[float]:
    values = [getattr(meter, name) for name in NAMES]
    return [value.total() if isinstance(value, Counter) else round(value, 1) for value in values]


def record(path: Path, recipe: str, overrides: list[str], limit: int | None) -> None:
    listener = Recorder()
    listener.limit = limit
    Recipe.load(recipe, overrides).run(RunOptions(limit=limit, listener=listener))
    layout = listener.layout
    head = {
        "run": [recipe, *overrides, f"limit={limit}"], "blocks": listener.blocks, "target": layout.target,
        "sources": [[*place, count] for place, count in layout.sources.items()],
        "pools": [[*place, pool] for place, pool in layout.pools.items()],
    }  # fmt: skip
    looks = ",\n".join(json.dumps(look, separators=(",", ":")) for look in listener.looks)
    path.write_text(f'{json.dumps(head)[:-1]}, "looks": [\n{looks}]}}\n')


def recorded(path: Path) -> tuple[Layout, list[tuple[float, list[StepCounts]]]]:
    """What was known before the run, and the looks at it: seconds since its beginning, and the counts."""
    told = json.loads(path.read_text())
    sources = {(step, name): count for step, name, count in told["sources"]}
    pools = {(step, name): pool if isinstance(pool, str) else (step, name) for step, name, pool in told["pools"]}
    return Layout(sources, pools, told["target"]), [(at, _steps(told["blocks"], rows)) for at, rows in told["looks"]]


def _steps(blocks: list[tuple[str, str]], rows: list[list[float]]) -> list[StepCounts]:
    steps: dict[str, list[tuple[str, Meter]]] = {}
    for (step, name), row in zip(blocks, rows, strict=True):
        meter = Meter()
        for key, value in zip(NAMES, row, strict=True):
            setattr(meter, key, Counter({"any": value} if value else {}) if key == "dropped" else value)
        meter.latency = Counter({"0": answered} if (answered := meter.requests - meter.in_flight) else {})
        steps.setdefault(step, []).append((name, meter))
    return [StepCounts(name, number, f"{name}.jsonl", blocks) for number, (name, blocks) in enumerate(steps.items(), 1)]


if __name__ == "__main__":
    limits = [int(word.removeprefix("limit=")) for word in sys.argv[3:] if word.startswith("limit=")]
    record(Path(sys.argv[1]), sys.argv[2], [w for w in sys.argv[3:] if not w.startswith("limit=")], *limits or [None])
