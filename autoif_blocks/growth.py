"""`target: N`: how a run goes on until N records have come to the recipe's end.

Round 1 is the recipe as it is written. Each further round is the recipe with more of one option of one block, sized by
what that option has brought so far. What earlier rounds asked is replayed from the cache, so a round pays only for what
is new; and as sizes follow from counts, the same recipe and completions give the same rounds and the same bytes,
however often the run was stopped or killed on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .blocks.base import Block
from .options import fitted, options_of
from .steps import BlockSpec, Step

MOST_ROUNDS = 12
_MOST_GROWTH = 4  # times the last round: an estimate from a few records may be far off
_LEAST_GROWTH = 0.05  # of the last round: the last few records shall not take a round each
_MARGIN = 1.1


@dataclass(frozen=True)
class Grower:
    """The option that a run raises when it wants more records: the first one that a block's class names by `grows`."""

    step: int
    """the number of its step"""
    block: int
    """its place in the step, from 0"""
    spec: BlockSpec
    option: str
    size: int
    """the option's value as the recipe has it"""
    title: str
    """as messages call it: `n of step 'augment_instructions'`"""

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Grower | None:
        """The grower of a recipe, None if it has none.

        Raises:
            ValueError: the class names something that cannot grow.
        """
        for step in steps:
            for place, spec in enumerate(step.blocks):
                option = getattr(spec.cls, "grows", "") if issubclass(spec.cls, Block) else ""
                if option:
                    title = f"{option} of step '{step.name}'"
                    return cls(step.number, place, spec, option, _size(spec, option), title)
        return None

    def steps(self, steps: Sequence[Step], size: int) -> list[Step]:
        """The steps with the option raised to `size`."""
        spec = self.raised(size)
        return [
            replace(step, blocks=(*step.blocks[: self.block], spec, *step.blocks[self.block + 1 :]))
            if step.number == self.step
            else step
            for step in steps
        ]

    def raised(self, size: int) -> BlockSpec:
        """The block with the option raised."""
        return replace(self.spec, options={**self.spec.options, self.option: size})


def _size(spec: BlockSpec, option: str) -> int:
    known = options_of(spec.cls)
    size = fitted(spec.cls, spec.options).get(option, known[option].default if option in known else None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{spec.title}.grows names '{option}', which must be an option with a number from 1 on")
    return size


@dataclass
class Rounds:
    """The rounds of one run."""

    target: int
    grower: Grower
    done: list[tuple[int, int]] = field(default_factory=list)
    """(size, records accepted) of each round that came to its end"""

    @property
    def size(self) -> int:
        """How much the round that is under way, or comes next, asks for."""
        if not self.done:
            return self.grower.size
        (size, accepted), before = self.done[-1], self.done[-2] if self.done[1:] else (0, 0)
        most = size * _MOST_GROWTH
        if accepted <= before[1]:
            return most
        for_one = (size - before[0]) / (accepted - before[1])
        more = math.ceil(max(_MARGIN * (self.target - accepted) * for_one, _LEAST_GROWTH * size))
        return min(size + more, most)

    @property
    def reached(self) -> bool:
        return bool(self.done) and self.done[-1][1] >= self.target

    @property
    def hopeless(self) -> str:
        """Why a further round makes no sense; nothing if it does."""
        if len(self.done) > 1 and self.done[-1][1] <= max(accepted for _, accepted in self.done[:-1]):
            (before, _), (size, _) = self.done[-2:]
            return f"raising {self.grower.title} from {before} to {size} has brought no further record"
        if len(self.done) >= MOST_ROUNDS:
            return f"{MOST_ROUNDS} rounds are the most"
        try:
            self.grower.raised(self.size).build()
        except Exception as error:  # a constructor may set bounds
            return f"{self.grower.title} cannot be {self.size}: {error}"
        return ""

    @property
    def over(self) -> bool:
        return self.reached or bool(self.hopeless)

    def told(self) -> str:
        """The last round, in words."""
        size, accepted = self.done[-1]
        return f"round {len(self.done)}: {accepted} of {self.target} records with {size} as {self.grower.title}"

    def to_dict(self, accepted: int) -> dict[str, Any]:
        """Plain data for `run.json`."""
        rounds = [{"size": size, "accepted": accepted} for size, accepted in self.done]
        return {"wanted": self.target, "accepted": accepted, "grows": self.grower.title, "rounds": rounds}
