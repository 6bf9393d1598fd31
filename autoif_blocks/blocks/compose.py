"""`compose`: several verified instructions for one prompt, none of which is in the way of another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from datatrove.data import Document

from ..errors import DropRecord
from ..records import MADE_FROM, Record, seeded_random
from .behaviour import Comparing
from .conflicts import conflict
from .functions import weights_of


class Compose(Comparing):
    """Puts several instructions together that can be followed together: each record begins `per_record` compositions.

    Partners are drawn from all records, by content and the recipe's seed. One is passed over if it conflicts with one
    that is chosen already, or is implied by one: because their words say so (counts, case, letters, shape, in
    English) or because their functions do. These are run on a pool of texts, the cases of all records and the fields
    of `also`: two conflict if no text is accepted by both, and one implies the other if the other accepts all that it
    accepts, where the chance of that among unrelated ones is below `chance`. What is left may conflict still: the
    responses show it.

    A composition has `constraints`, a list of {instruction, functions}, and all of their texts as its `instruction`.
    With `weights` each constraint has the `function_weights` that its functions vote with. An instruction without
    functions is dropped.

    Args:
        sizes: how many constraints: one of these is drawn each time. What stands twice is drawn twice as often.
        per_record: compositions that each record begins; equal ones are made once.
        tries: partners that are looked at for one composition.
        chance: how unlikely an observation must be to count, 0 to 1; 0 leaves functions out of it.
        witness: whether any two must have a text of the pool that both accept.
        weights: a field with a number for each function, `mutation_scores` for example, to vote with; null: none.
    """

    kind = "join"
    writes = ("constraints", "instruction")

    def __init__(
        self,
        sizes: list[int] | None = None,
        per_record: int = 1,
        tries: int = 50,
        chance: float = 0.001,
        witness: bool = False,
        weights: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.sizes = sizes if sizes is not None else [2, 2, 3, 3, 4, 5]
        if not self.sizes:
            raise ValueError("sizes must name at least one, or be left out")
        if min(self.sizes) < 2:
            raise ValueError(f"sizes must all be at least 2, got {min(self.sizes)}")
        for name, value in (("per_record", per_record), ("tries", tries)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= chance < 1:
            raise ValueError(f"chance must be in [0, 1), got {chance}")
        self.per_record = per_record
        self.tries = tries
        self.chance = chance
        self.witness = witness
        self.weights = weights
        self.reads = ("instruction", *self.reads, *([weights] if weights else []))

    def fields_after(self, before: frozenset[str]) -> frozenset[str]:
        return frozenset(self.writes)

    def look_at(self, record: Record) -> None:
        super().look_at(record)
        if not isinstance(record["instruction"], str):
            raise TypeError(f"'instruction' must be a text, got {str(record['instruction'])[:80]!r}")
        if not record["functions"]:
            raise DropRecord("no_function", "nothing would verify that the instruction is followed")
        weights_of(record, self.weights)

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        records = self.taken(data)
        pool = self.pool_of(records)
        self._size = max(1, len(pool))
        self._accepted = {  # a bit for each text
            record.id: sum(1 << place for place, mark in enumerate(said) if mark == "+")
            for record, said in self.behaviours(records, pool)
        }
        everybody = [record for record in records if record.id in self._accepted]  # some are not if the run is stopping
        made: set[frozenset[str]] = set()
        for record in everybody:
            yield from self.deliver(record, self._compositions(record, everybody, made))

    def _compositions(
        self, record: Record, everybody: Sequence[Record], made: set[frozenset[str]]
    ) -> list[Record] | DropRecord:
        found: list[Record] = []
        passed: Counter[str] = Counter()
        why_none = "no_partner"
        for number in range(self.per_record):
            draw = seeded_random("compose", self.live.settings.seed, record.id, number)
            size = draw.choice(self.sizes)
            chosen = [record]
            for partner in draw.sample(everybody, min(self.tries, len(everybody))):
                why = next(filter(None, (self._against(partner, other) for other in chosen)), None)
                if why is None:
                    chosen.append(partner)
                elif partner is not record:
                    passed[why] += 1
                if len(chosen) == size:
                    break
            members = frozenset(one.id for one in chosen)
            if len(chosen) < size or members in made:
                reason = "too_few_partners" if len(chosen) < size else "composed_already"
                why_none = "no_partner" if len(chosen) < size else reason
                self.discard(record, reason, f"{len(chosen)} of {size}; passed over: {dict(passed)}")
                continue
            made.add(members)
            draw.shuffle(chosen)
            found.append(self._composition(record, chosen))
        return found or DropRecord(why_none, f"passed over: {dict(passed)}")

    def _against(self, one: Record, other: Record) -> str | None:
        """Why two do not go together."""
        if one.id == other.id or one["instruction"] == other["instruction"]:
            return "the same"
        if conflict(one["instruction"], other["instruction"]):
            return "conflict in words"
        first, second = self._accepted[one.id], self._accepted[other.id]
        both = (first & second).bit_count()
        few, many = sorted((first.bit_count(), second.bit_count()))
        if both == 0 and (self.witness or self._unlikely(1 - many / self._size, few)):
            return "no text follows both"
        if both == few and self._unlikely(many / self._size, few):
            return "one implies the other"
        return None

    def _unlikely(self, share: float, times: int) -> bool:
        """Whether so many texts of the one would hardly all fall on a share of the pool."""
        return self.chance > 0 and times > 0 and times * math.log(max(share, 1e-12)) < math.log(self.chance)

    def _composition(self, record: Record, chosen: Sequence[Record]) -> Record:
        constraints = [
            {
                "instruction": one["instruction"],
                "functions": one["functions"],
                **({"function_weights": one[self.weights]} if self.weights else {}),
            }
            for one in chosen
        ]
        text = " ".join(one["instruction"] for one in chosen)
        members = sorted(one.id for one in chosen)
        whole = record.only(constraints=constraints, instruction=text).child("composed", *members)
        return whole.with_(**{MADE_FROM: [*members]})
