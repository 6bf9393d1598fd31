"""Where a record comes from and what became of it: found by the ids that the step files hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import RecipeError
from .outputs import lines_of, row_id, shards_of
from .records import MADE_FROM, SEEDS, read_json
from .state import RunState
from .storage import copy_of, is_url
from .timeline import FILE as TIMELINE

Kind = Literal["kept", "dropped", "discarded"]


@dataclass(frozen=True)
class Sighting:
    """A row about a record in one of a run's files."""

    step: str
    number: int
    kind: Kind
    row: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """The record's fields at that point; none in `discarded/`, which holds a piece."""
        fields = self.row if self.kind == "kept" else self.row.get("record", {})
        return {name: value for name, value in fields.items() if name != "id"} if isinstance(fields, dict) else {}


@dataclass
class Trail:
    """Everything that the files hold on one record, step by step."""

    id: str
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def fields(self) -> dict[str, Any]:
        """All fields that it ever had, each with its last value."""
        left = self.dropped
        own = (seen for seen in self.sightings if seen.kind == "kept" or seen is left)
        return {name: value for seen in own for name, value in seen.fields.items()}

    @property
    def made_from(self) -> list[str]:
        return ids_in(self.fields)

    @property
    def first(self) -> int:
        """The number of the step in which it appeared."""
        return self.sightings[0].number

    @property
    def kept(self) -> Sighting | None:
        """The last step that it survived."""
        return next((seen for seen in reversed(self.sightings) if seen.kind == "kept"), None)

    @property
    def dropped(self) -> Sighting | None:
        """Where it left. One that survived the same step, or a later one, is the first of several equal ones: what was
        dropped is another."""
        last = self.kept.number if self.kept else 0
        left = [seen for seen in self.sightings if seen.kind == "dropped" and seen.number > last]
        return min(left, key=lambda seen: seen.row.get("reason") == "duplicate", default=None)


@dataclass(frozen=True)
class Link:
    """A record of a line of descent."""

    trail: Trail
    seeds: list[Trail]
    """of a new instruction: those that the model was shown"""


class Files:
    """The step files of an output directory.

    Raises:
        RecipeError: the directory holds no run.
    """

    def __init__(self, output: Path, called: str = "") -> None:
        """`called` is what a person calls the directory, if not by its path."""
        self.called = called or str(output)
        found = RunState.earlier(output)
        if found is None or not isinstance(found.get("steps"), list):
            raise RecipeError(
                f"{self.called} holds no run: there is no run.json to read; name a run's output directory"
            )
        self.output = output
        self.run = found
        self.steps: list[dict[str, Any]] = found["steps"]

    @classmethod
    def at(cls, where: str | Path, last_only: bool = False) -> Files:
        """Those of a directory, or of a remote one by its URL, of which a copy is brought: all that these files are, or
        the last step's records only.

        Raises:
            RecipeError: it holds no run, or the URL cannot be used.
            StopRun: it cannot be read.
        """
        if not is_url(str(where)):
            return cls(Path(where))
        url = str(where).rstrip("/")
        files = cls(copy_of(url, lambda name: name == "run.json"), url)
        if last_only:
            names = {"run.json", *(step["file"] for step in files.steps[-1:])}
        else:
            names = {"run.json", TIMELINE, *(str(path.relative_to(files.output)) for *_, path in files.paths())}
        starts = tuple(f"{name.removesuffix('.jsonl')}/shard_" for name in names)
        copy_of(url, lambda name: name in names or name.startswith(starts))
        return cls(files.output, url)

    @property
    def last(self) -> dict[str, Any]:
        """The recipe's last step among those that have run."""
        return self.steps[-1]

    def paths(self) -> Iterator[tuple[dict[str, Any], Kind, Path]]:
        """All files that may be there, in the order of the steps; of one: what it kept, dropped, discarded."""
        for step in self.steps:
            for kind, folder in (("kept", self.output), ("dropped", self.output / "dropped"),
                                 ("discarded", self.output / "discarded")):  # fmt: skip
                yield step, kind, folder / step["file"]  # type: ignore[misc]

    def place(self, step: dict[str, Any]) -> str:
        """Where the records of a step are: its file, or the folder of the shards that it was split into."""
        path: Path = self.output / step["file"]
        path = path if path.is_file() or not shards_of(path) else path.with_suffix("")
        return f"{self.called}/{path.name}"

    def rows(self, wanted: Callable[[bytes], bool]) -> Iterator[Sighting]:
        """The rows whose line is wanted; a line that is no row is passed over, as an editor may have left it."""
        for step, kind, path in self.paths():
            for line in lines_of(path):
                if wanted(line) and (row := read_row(line)) is not None:
                    yield Sighting(step["name"], step["number"], kind, row)

    def trails(self, ids: Iterable[str]) -> dict[str, Trail]:
        """What the files hold on these records."""
        trails = {name: Trail(name) for name in ids}
        for seen in self.rows(lambda line: row_id(line) in trails):
            trails[seen.row["id"]].sightings.append(seen)
        return {name: trail for name, trail in trails.items() if trail.sightings}

    def chain(self, record_id: str) -> list[Link]:
        """The record, and before it those that it descends from, the farthest first.

        Raises:
            RecipeError: no file knows the record.
        """
        found = self.trails([record_id])
        if not found:
            raise RecipeError(
                f"no file of {self.called} has a record '{record_id}'; `autoif why {self.called} TEXT` finds by text"
            )
        links: list[Link] = []
        trail: Trail | None = found[record_id]
        while trail is not None:
            seeds = ids_in(trail.fields, SEEDS)
            known = self.trails([*trail.made_from, *seeds])
            links.append(Link(trail, [known[name] for name in seeds if name in known]))
            # Ever earlier: whatever a file says, this ends.
            nearest = (known[name] for name in reversed(trail.made_from) if name in known)
            trail = next((parent for parent in nearest if parent.first < links[-1].trail.first), None)
        return links[::-1]

    def offspring(self, record_id: str) -> dict[str, Trail]:
        """The records that descend from this one."""
        needle = record_id.encode()
        naming = (seen for seen in self.rows(lambda line: needle in line) if record_id in ids_in(seen.fields))
        return self.trails([seen.row["id"] for seen in naming])

    def matching(self, text: str) -> dict[str, Trail]:
        """The records that have this text in one of their fields, or that were dropped with it."""
        needle = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
        found = {seen.row["id"]: None for seen in self.rows(lambda line: needle in line) if seen.kind != "discarded"}
        return self.trails(found)


def ids_in(fields: Mapping[str, Any], name: str = MADE_FROM) -> list[str]:
    """The ids of other records that a record names: those that it descends from, or its `seeds`."""
    found = fields.get(name)
    return [other for other in found if isinstance(other, str)] if isinstance(found, list) else []


def read_row(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None if it is none."""
    try:
        row = read_json(line)
    except (ValueError, RecursionError):
        return None
    # An id that is not where all rows have it, or that stands twice, would be found by some readers and not by others.
    return row if isinstance(row, dict) and row.get("id") == row_id(line) is not None else None
