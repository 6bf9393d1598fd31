"""How much of a run is done, and when it will be: from the counts so far, and "not known" while they do not tell.

The sizes of fan-outs are not known before they have happened, so the whole of a run is reckoned anew at each look. The
blocks form one chain. For each of them

- *expected* records are those that have come, those that wait before it, and those that the blocks before it are
  still expected to give: what they have left to do, times the records that they have given for one that they settled.
  A reader is expected to read as many records as its file has lines;
- its *work* are the requests that were answered, completions from the cache counted as the requests that they saved;
  what it will be in all is the work for one record that it is done with, times the expected records. A request counts
  as long as the block's requests take on average, so that a judge's short answers do not count as much as long texts.
  Blocks that run code are done with records instead of requests, other blocks count nothing (where there are no others,
  a record in each).

The share that is done is work over expected work. It is not known before each block that records wait for has
settled one, and what is shown of it never falls.

Blocks that ask the same model share what it can do: together they are a *pool*, and so is each block that runs code.
The pools work side by side, so the time left is that of the pool that will be the last to end: the work that it has
left at its own pace over the last half of the run, of a minute at most; and never less than the requests take that the
last record still has before it. With a target it is the time that the round has left, if the round is expected to reach
the target; else nobody knows. The share then is that of the target.

It is told once the end that follows has stayed the same for a while, to a third; withdrawn when that is off by a factor
of three, and follows changes slowly: it moves by what is new over a tenth of the run's time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..accounting import Meter
from ..state import StepCounts

Place = tuple[str, str]
"""a step and the name of a block's class in it"""
Pool = str | Place
"""a model's name, or the place of a block"""

_PACE_OVER = 60.0  # seconds, at most, over which a pace is taken
_FIRST_WORD = 5.0  # seconds before which nothing is said of the end
_STABLE = 4 / 3
_ADRIFT = 3.0
_LOOKS = 600  # kept for the pace


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    share: float | None = None
    """of what is to be done, 0 to 1; None: not known yet"""
    left: float | None = None
    """seconds until it is done, about; None: not known, or no longer"""


@dataclass(frozen=True)
class Layout:
    """What is known of a run's blocks before it begins."""

    sources: Mapping[Place, int] = field(default_factory=dict)
    """how many records readers will read, where that is known"""
    pools: Mapping[Place, Pool] = field(default_factory=dict)
    """who does the work of a block, unless it is the block itself or nobody"""
    target: int | None = None


@dataclass(frozen=True)
class _Part:
    """What one block has done and will have done."""

    pool: Pool
    done: float
    left: float
    """NaN: not known"""
    weight: float
    """seconds that one of it takes, as far as that is known"""
    latency: float
    """seconds that the next record will wait for this block's requests"""


class Estimator:
    """Give it each look at a run's counts, in order."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._shown = 0.0
        self._past: deque[tuple[float, list[float]]] = deque(maxlen=_LOOKS)
        self._idle: dict[int, float] = {}
        """until when a block had done nothing, by its number in the chain"""
        self._sent, self._sent_at = 0, 0.0
        self._ends: deque[tuple[float, float]] = deque(maxlen=_LOOKS)
        self._end: float | None = None
        self._last = 0.0

    def look(self, seconds: float, steps: Sequence[StepCounts]) -> Progress:
        """How far the run is `seconds` after it has begun. `steps` are the counts of this round alone."""
        parts, coming = _parts(steps, self._layout)
        done = [part.done for part in parts]
        if self._past and sum(done) < sum(self._past[-1][1]):  # another round begins
            self._past.clear()
        self._past.append((seconds, done))
        self._idle.update({at: seconds for at, count in enumerate(done) if not count})
        sent = sum(meter.requests for step in steps for _, meter in step.blocks)
        if sent != self._sent:
            self._sent, self._sent_at = sent, seconds
        whole = sum((part.done + part.left) * part.weight for part in parts)
        share = sum(part.done * part.weight for part in parts) / whole if whole > 0 else 0.0  # nor if it is not known
        left = self._left(seconds, parts) if whole > 0 else None
        if (target := self._layout.target) is not None:
            share = steps[-1].whole.given / target if steps else 0.0
            if left is not None and coming < target:  # there will be another round, of which nothing is known
                self._end = left = None
        self._shown = max(self._shown, min(1.0, share))
        return Progress(self._shown or None, self._told(seconds, left))

    def _left(self, seconds: float, parts: Sequence[_Part]) -> float | None:
        """Seconds left, by what is known now; None if some pool's pace is not."""
        longest, since = 0.0, seconds - min(_PACE_OVER, seconds / 2)
        for pool in {part.pool for part in parts if part.left * part.weight > 0}:
            ours = [(at, part) for at, part in enumerate(parts) if part.pool == pool]
            begun = max(since, min(self._idle.get(at, 0.0) for at, _ in ours))
            then, before = next(look for look in self._past if look[0] >= begun)
            fresh = sum((part.done - before[at]) * part.weight for at, part in ours)
            if fresh <= 0 or seconds <= then:
                return None
            longest = max(longest, sum(part.left * part.weight for _, part in ours) * (seconds - then) / fresh)
        way = sum(part.latency for part in parts if part.left > 0)
        return max(longest, way - (seconds - self._sent_at))

    def _told(self, seconds: float, left: float | None) -> float | None:
        """What is told of the time left."""
        passed, self._last = seconds - self._last, seconds
        if left is None:
            return None if self._end is None or self._end <= seconds else self._end - seconds
        raw = seconds + left
        self._ends.append((seconds, raw))
        recent = [end for at, end in self._ends if at >= seconds - max(_FIRST_WORD, seconds / 5)]
        if self._end is None:
            if seconds >= 2 * _FIRST_WORD and seconds - self._ends[0][0] >= _FIRST_WORD:
                self._end = raw if max(recent) < _STABLE * min(recent) else None
        elif max(raw / self._end, self._end / raw) > _ADRIFT:
            self._end = None
        else:
            self._end += (raw - self._end) * (1 - math.exp(-passed / max(2.0, seconds / 10)))
        # What changes slowly is late at the end, when the pace falls: never less than half of what it would be anew.
        return None if self._end is None else max(self._end - seconds, left / 2)


def _parts(steps: Sequence[StepCounts], layout: Layout) -> tuple[list[_Part], float]:
    """The blocks in order, those that have nothing to do without weight; and how many records will come to the end."""
    chain = [((step.name, name), meter) for step in steps for name, meter in step.blocks]
    meters = [meter for _, meter in chain]
    answers, busy = sum(meter.latency.total() for meter in meters), sum(meter.busy for meter in meters)
    usual = busy / answers if answers and busy else 1.0
    working = [place in layout.pools or bool(meter.requests or meter.hits) for place, meter in chain]
    parts: list[_Part] = []
    known, to_come, before = True, 0.0, 0
    for number, (place, meter) in enumerate(chain):
        came = meter.taken if number == 0 else max(before, meter.taken)
        reads = max(0, layout.sources.get(place, 0) - meter.created - (meter.taken if number == 0 else 0))
        settled = meter.given + meter.dropped.total() - meter.created
        worked = max(meter.worked, settled)
        waiting = came - settled + to_come
        # One that answers for all its records together has given none of what it is still asked for.
        if (waiting > 0 and not settled and (number > 0 or not reads)) or (waiting <= 0 and meter.in_flight):
            known = False
        asks = bool(meter.requests or meter.hits)
        done = _answered(meter) if asks else float(worked)
        one = meter.busy / meter.latency.total() if meter.busy and meter.latency else usual if asks else 1.0
        left = max(0.0, (done / worked if worked > 0 else 0.0) * (came + to_come) - done) if known else math.nan
        weight = one if working[number] or not any(working) else 0.0
        parts.append(_Part(layout.pools.get(place, place), done, left, weight, one if meter.latency else 0.0))
        to_come = waiting * (meter.given / settled if settled > 0 else 0.0) + reads
        before = meter.given
    return parts, before + to_come


def _answered(meter: Meter) -> float:
    sent = meter.requests - meter.in_flight
    return sent + meter.hits * (max(sent, 1) / meter.completions if meter.completions else 1.0)
