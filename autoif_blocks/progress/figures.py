"""The numbers that a view shows, however it shows them: reckoned from one look at a run's state."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..accounting import Meter
from ..blocks.readers import Reader
from ..budget import Budget
from ..limits import ServerHealth
from ..recipe import Recipe
from ..state import Look, RunState
from ..steps import Step
from .estimate import Estimator, Layout, Place, Pool, Progress

_RATE_OVER = 10.0  # seconds over which what happens in one is taken
_MOST_BYTES = 2**26  # of a reader's file that are read to count its lines; of a larger one it is reckoned from them


@dataclass(frozen=True)
class StepFigures:
    """One step."""

    number: int
    name: str
    meter: Meter
    per_second: float
    """requests answered"""
    tokens_per_second: float

    @property
    def hit_rate(self) -> float | None:
        """The share of completions that came from the cache; None if none was needed."""
        needed = self.meter.hits + self.meter.completions
        return self.meter.hits / needed if needed else None

    @property
    def begun(self) -> bool:
        return bool(self.meter.taken or self.meter.created)

    @property
    def at_work(self) -> bool:
        """Whether it has records in hand."""
        return self.meter.taken + self.meter.created > self.meter.given + self.meter.dropped.total()


@dataclass(frozen=True)
class Figures:
    """A run at one moment."""

    seconds: float
    steps: list[StepFigures]
    progress: Progress
    accepted: tuple[int, int] | None
    """records, and how many the target is, where the recipe has one"""
    budget: dict[str, tuple[float, float]]
    """what is left of each of the recipe's limits, and the limit"""
    reasons: list[tuple[str, str, int]]
    """step, reason and count of what was dropped, the most frequent first"""
    servers: list[tuple[str, ServerHealth]]
    warning: tuple[float, str] | None

    @property
    def requests(self) -> int:
        return sum(step.meter.requests for step in self.steps)

    @property
    def in_flight(self) -> int:
        return sum(step.meter.in_flight for step in self.steps)

    @property
    def dropped(self) -> int:
        return sum(step.meter.dropped.total() for step in self.steps)


@dataclass
class Watch:
    """Looks at a run again and again."""

    state: RunState
    recipe: Recipe | None = None
    steps: Sequence[Step] = ()
    limit: int | None = None
    _began: float = field(default_factory=time.monotonic)
    _rates: dict[str, _Rate] = field(default_factory=dict)
    _estimator: Estimator | None = None

    def look(self) -> Figures:
        if self._estimator is None:  # not sooner: it may read large files
            self._estimator = Estimator(layout(self.recipe, self.steps, self.limit))
        look = self.state.look()
        seconds = time.monotonic() - self._began
        steps = [self._step(step.number, step.name, step.whole, seconds) for step in look.steps]
        reasons: Counter[tuple[str, str]] = Counter()
        for step in steps:
            reasons.update({(step.name, reason): count for reason, count in step.meter.dropped.items()})
        target = self.recipe.target if self.recipe else None
        return Figures(
            seconds, steps, self._estimator.look(seconds, look.round),
            (steps[-1].meter.given, target) if target and steps else None,
            self._budget(look, seconds), [(*name, count) for name, count in reasons.most_common()],
            [(model, self._whole(model, health)) for model, health in look.servers], look.warning,
        )  # fmt: skip

    def _step(self, number: int, name: str, whole: Meter, seconds: float) -> StepFigures:
        rate = self._rates.setdefault(name, _Rate())
        tokens = whole.prompt_tokens + whole.completion_tokens
        return StepFigures(number, name, whole, *rate.of(seconds, whole.requests - whole.in_flight, tokens))

    def _whole(self, model: str, health: ServerHealth) -> ServerHealth:
        """What all tasks together ask of a server, also while fewer of them run than may: each has its share."""
        config = self.recipe.models.get(model) if self.recipe else None
        if self.recipe is None or config is None or self.recipe.executor.serves_each(config) or config.mode == "batch":
            return health
        limit = max(1, round(config.max_concurrency * health.limit / health.ceiling))
        return replace(health, limit=limit, ceiling=config.max_concurrency)

    def _budget(self, look: Look, seconds: float) -> dict[str, tuple[float, float]]:
        budget = self.recipe.budget if self.recipe else Budget()
        whole = Meter()
        for step in look.steps:
            whole.add(step.whole)
        used = {
            "requests": whole.requests, "tokens": whole.prompt_tokens + whole.completion_tokens, "cost": whole.cost,
            "minutes": seconds / 60,
        }  # fmt: skip
        limits = {name: getattr(budget, name) for name in used}
        return {
            name: (max(0.0, limit - used[name]), float(limit)) for name, limit in limits.items() if limit is not None
        }


class _Rate:
    """Requests and tokens a second, over the last while."""

    def __init__(self) -> None:
        self._past = [(0.0, 0, 0)]

    def of(self, seconds: float, requests: int, tokens: int) -> tuple[float, float]:
        past = self._past
        past.append((seconds, requests, tokens))
        while len(past) > 2 and past[1][0] <= seconds - _RATE_OVER:
            past.pop(0)
        passed = seconds - past[0][0]
        if passed <= 0:
            return 0.0, 0.0
        return max(0, requests - past[0][1]) / passed, max(0, tokens - past[0][2]) / passed


def layout(recipe: Recipe | None, steps: Sequence[Step], limit: int | None = None) -> Layout:
    """What is known of a run's blocks before it begins: about how many records each reader will read (the lines of its
    file), and which model each block asks."""
    sources: dict[Place, int] = {}
    pools: dict[Place, Pool] = {}
    for step in steps:
        for spec in step.blocks:
            place = step.name, spec.cls.__name__
            block = spec.build()
            if isinstance(block, Reader):
                with contextlib.suppress(OSError):
                    found = lines_of(Path(str(getattr(block, "path", ""))))
                    sources[place] = min(found, limit or found) if step.number == 1 else found
            elif model := getattr(block, "model", None):
                pools[place] = str(model)
            elif block.kind == "executor":
                pools[place] = place
    if recipe is not None and steps and steps[0].number > 1:
        with contextlib.suppress(OSError):
            path = recipe.output_dir / recipe.steps[steps[0].number - 2].file
            sources[steps[0].name, "ReadStep"] = lines_of(path)
    return Layout(sources, pools, recipe.target if recipe else None)


def lines_of(path: Path) -> int:
    """The lines of a file; of a very large one about how many there are."""
    read, count, piece = 0, 0, b""
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            piece = chunk
            read += len(piece)
            count += piece.count(b"\n")
            if read >= _MOST_BYTES:
                return round(count * path.stat().st_size / read)
    return count + (bool(piece) and not piece.endswith(b"\n"))
