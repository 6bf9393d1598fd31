"""Which records the page carries: some of every end that records came to, with all that they descend from.

Of each end (survived; dropped at a step for a reason; became others; unfinished) the first N records by id are taken,
with N as large as the page's size allows. Ids are hashes of content, so these are as good as drawn at random, and two
reports of one run show the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lineage import Files, Sighting, Trail, ids_in
from ..records import MADE_FROM, SEEDS, compact_json

BUDGET = 1_900_000  # bytes of records in the page, which shall stay below 3 MB with the charts' library
MOST = 1000
_LADDER = (1000, 700, 500, 350, 250, 150, 100, 60, 40, 25, 15, 8, 4, 2, 1)
_TEXT = 1500  # characters of one text
_DEEP = 240  # of one deeper down: a case, a turn of a chat
_ITEMS = 12  # of one list
_NOTES = 6  # pieces left out in one step
_DEPTH = 6
REPEATS = "(made of the words above)"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, order=True)
class End:
    """An end that records came to."""

    number: int
    step: str
    kind: str
    """`survived`, `dropped`, `became` (others) or `unfinished`"""
    reason: str = ""


Entry = dict[str, Any]
"""A record in the page: `id`, `end` (a number in the list of ends), `from` (an id), `steps`, and `cut` if shortened"""


def sample(files: Files, ends: Mapping[End, Sequence[str]]) -> tuple[list[Entry], int]:
    """The entries of the page, and how many of each end there are at most.

    Args:
        ends: up to `MOST` ids of each, in order.
    """
    known = files.trails(name for ids in ends.values() for name in ids)
    fresh = known
    while fresh := files.trails({name for trail in fresh.values() for name in _names(trail)} - set(known)):
        known = {**known, **fresh}
    maker = _Maker(known)
    order = sorted(ends)
    for most in _LADDER:
        chosen = [(number, end, name) for number, end in enumerate(order) for name in ends[end][:most]]
        entries = maker.entries(chosen)
        if sum(size for _, size in entries) <= BUDGET or most == 1:
            return [entry for entry, _ in entries], most
    raise AssertionError("unreachable")


def _names(trail: Trail) -> list[str]:
    return [*trail.made_from, *ids_in(trail.fields, SEEDS)]


class _Maker:
    def __init__(self, known: Mapping[str, Trail]) -> None:
        self._known = known
        self._made: dict[tuple[str, End | None], tuple[Entry, int]] = {}

    def entries(self, chosen: Sequence[tuple[int, End, str]]) -> list[tuple[Entry, int]]:
        """Entries with their sizes: those chosen, and those that they descend from, which have no `end`."""
        found: dict[str, tuple[Entry, int]] = {}
        for number, end, name in chosen:
            entry, size = self._of(name, end)
            # One record may stand for several ends: it lives on, and an equal one was dropped as a duplicate.
            found[f"{number} {name}"] = ({**entry, "end": number}, size + 12)
        shown = {name for _, _, name in chosen}
        waiting = [entry for entry, _ in found.values()]
        while waiting:
            entry = waiting.pop()
            for name in (*([entry["from"]] if "from" in entry else []), *entry.get("seeds", [])):
                if name in self._known and name not in shown:
                    shown.add(name)
                    made = self._of(name, None)
                    found[f"- {name}"] = made
                    waiting.append(made[0])
        return list(found.values())

    def _of(self, name: str, end: End | None) -> tuple[Entry, int]:
        if (name, end) not in self._made:
            entry = self._entry(self._known[name], end)
            self._made[name, end] = entry, len(compact_json(entry)) + 1
        return self._made[name, end]

    def _entry(self, trail: Trail, end: End | None) -> Entry:
        seen = self._seen(trail, end)
        nearest = (self._known[name] for name in reversed(trail.made_from) if name in self._known)
        parent = next((other for other in nearest if other.first < trail.first), None)
        told: dict[str, Any] = dict(parent.fields) if parent else {}
        trimmer = _Trimmer()
        steps: list[list[Any]] = []
        for sighting in seen:
            if not steps or steps[-1][0] != sighting.number:
                steps.append([sighting.number, {}, []])
            if sighting.kind == "discarded":
                notes = steps[-1][2]
                if len(notes) < _NOTES:
                    notes.append(_said(sighting, trimmer))
                trimmer.cut |= len(notes) == _NOTES
                continue
            for key, value in sighting.fields.items():
                if key not in (MADE_FROM, SEEDS) and told.get(key, ...) != value:
                    shown = REPEATS if _repeats(value, told) else trimmer.value(value)
                    steps[-1][1][trimmer.text(key)] = shown
            told.update(sighting.fields)
            if sighting.kind == "dropped":
                steps[-1].append(_said(sighting, trimmer))
        seeds = trail.fields.get(SEEDS)
        return {
            "id": trail.id,
            **({"from": parent.id} if parent else {}),
            **({"seeds": trimmer.value(seeds)} if isinstance(seeds, list) and len(seeds) else {}),
            "steps": steps,
            **({"cut": 1} if trimmer.cut else {}),
        }

    @staticmethod
    def _seen(trail: Trail, end: End | None) -> list[Sighting]:
        """The rows about the record that came to this end: not those of an equal one."""
        own = trail.dropped
        if end is not None and end.kind == "dropped" and (own is None or _end_of(own) != (end.number, end.reason)):
            return [seen for seen in trail.sightings if seen.kind == "dropped"
                    and _end_of(seen) == (end.number, end.reason)][:1]  # fmt: skip
        return [seen for seen in trail.sightings if seen.kind != "dropped" or seen is own]


def _repeats(value: Any, told: dict[str, Any]) -> bool:
    """Whether a structure, a chat record for example, holds no line of text that the record's fields do not."""
    if not isinstance(value, (list, dict)):
        return False
    whole = "\n".join(text for text in told.values() if isinstance(text, str))
    lines = [line for text in _leaves(value) if len(text) > len("assistant") for line in text.split("\n")]
    return bool(lines) and all(line in whole for line in lines)


def _leaves(value: Any) -> list[str]:
    if isinstance(value, (list, dict)):
        items = value if isinstance(value, list) else value.values()
        return [text for item in items for text in _leaves(item)]
    return [value] if isinstance(value, str) else []


def _end_of(seen: Sighting) -> tuple[int, str]:
    return seen.number, str(seen.row.get("reason", ""))


def _said(seen: Sighting, trimmer: _Trimmer) -> list[str]:
    return [trimmer.text(str(seen.row.get(name, "")))[:400] for name in ("reason", "detail")]


class _Trimmer:
    """Shortens what is long, and remembers that it did."""

    def __init__(self) -> None:
        self.cut = False

    def text(self, text: str, room: int = _TEXT) -> str:
        text = _SURROGATE.sub("�", text)
        if len(text) <= room:
            return text
        self.cut = True
        return f"{text[:room]}…"

    def value(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self.text(value, _TEXT if depth < 2 else _DEEP)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no such number
        if not isinstance(value, (list, dict)):
            return value
        self.cut |= len(value) > _ITEMS or depth >= _DEPTH
        if depth >= _DEPTH:
            return "…"
        if isinstance(value, list):
            return [self.value(item, depth + 1) for item in value[:_ITEMS]]
        return {self.text(key): self.value(item, depth + 1) for key, item in list(value.items())[:_ITEMS]}
