"""Counts of a run: what went into a block, what came out, what left and why, and what it cost to ask."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

_NAMES = {"taken": "in", "given": "out"}  # in files
PASSING = ("in_flight", "worked")
SPENT = ("requests", "retries", "completions", "hits", "prompt_tokens", "completion_tokens", "cost", "busy")
"""the counts that add up over the commands of a run"""


@dataclass
class Meter:
    """The counts of one block. Always `taken + created == given + sum(dropped.values())`.

    Each counter is written by one thread only (the block's consumer, or the event loop): no locks are needed.
    """

    taken: int = 0
    """records that came in"""
    created: int = 0
    """records that a fan-out, a join or a reader added: children beyond the first"""
    given: int = 0
    """records that went out"""
    dropped: Counter[str] = field(default_factory=Counter)
    """records that left, by reason"""
    discarded: Counter[str] = field(default_factory=Counter)
    """pieces that left while their record went on, by reason: a completion, a function, a case, a query of the pool"""
    requests: int = 0
    """HTTP requests sent, attempts that failed included"""
    retries: int = 0
    """requests that were sent again"""
    completions: int = 0
    """completions that a model wrote"""
    hits: int = 0
    """completions that came from the cache"""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """in the currency of the model's `price`"""
    hedges: int = 0
    """requests that were asked a second time because the first took long"""
    busy: float = 0.0
    """seconds that requests took, summed"""
    latency: Counter[str] = field(default_factory=Counter)
    """how long answers took: counts by k for 2^(k/4) to 2^((k+1)/4) seconds; JSON has no keys but text"""

    # How things are at this moment. Not annotated and so no fields: `run.json` does not have them.
    in_flight = 0
    """requests that are sent and not answered"""
    worked = 0
    """records that are done with, whether or not they have been taken on; kept by blocks that work ahead"""

    def answered(self, seconds: float) -> None:
        self.busy += seconds
        self.latency[str(math.floor(4 * math.log2(max(seconds, 1e-6))))] += 1

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the answers came, to about a tenth; 0 if none has come."""
        left = share * self.latency.total()
        for bucket in sorted(map(int, list(self.latency))):
            left -= self.latency[str(bucket)]
            if left <= 0:
                return float(2 ** ((bucket + 0.5) / 4))
        return 0.0

    @property
    def balanced(self) -> bool:
        return self.taken + self.created == self.given + self.dropped.total()

    def add(self, other: Meter) -> None:
        """Adds the counts of another task of the same block."""
        for name in (*(item.name for item in fields(self)), *PASSING):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `run.json`; `in` and `out` are the names that readers know."""
        row = {_NAMES.get(item.name, item.name): getattr(self, item.name) for item in fields(self)}
        # `dict(counter)` copies in one go: another thread may be counting meanwhile.
        return {key: dict(sorted(dict(v).items())) if isinstance(v, Counter) else v for key, v in row.items()}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Meter:
        names = {name: attribute for attribute, name in _NAMES.items()}
        counters = {item.name for item in fields(cls) if item.default_factory is Counter}
        values: dict[str, Any] = {names.get(k, k): Counter(v) if k in counters else v for k, v in row.items()}
        return cls(**values)


def total(meters: list[Meter]) -> Meter:
    """The counts of a chain of blocks seen as one step: in at the first, out at the last, all else summed."""
    whole = Meter()
    for meter in meters:
        whole.add(meter)
    whole.taken = meters[0].taken if meters else 0
    whole.given = meters[-1].given if meters else 0
    return whole
