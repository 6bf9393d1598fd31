"""What a cache holds, step by step, and how it gets smaller. No run may be using it when something is deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import BATCHES, FILE_NAME, configure, connect, transaction
from .errors import StopRun
from .salvage import mark, repair

if TYPE_CHECKING:
    from .recipe import Recipe
    from .state import StepCounts

_CHUNK = 16 * 4096  # bytes of keys


@dataclass(frozen=True)
class StepShare:
    """What a cache holds of one step."""

    step: str
    """the step that paid; empty if that is not known"""
    completions: int
    bytes: int
    oldest: int
    """when the first of them was paid for, in seconds since 1970"""
    unused: int
    """those that no step's last complete run has used"""
    hits: int
    """how many completions the cache gave to the step's last run, over all output directories"""
    asked: int
    """how many that run wanted"""


@dataclass(frozen=True)
class Selection:
    """Which completions: all that fit every condition."""

    steps: tuple[str, ...] = ()
    """paid for by one of these; empty: by any"""
    older_than: float | None = None
    """seconds; neither paid for nor used by a complete run since"""
    unused: bool = False
    """not used by the last complete run of any output directory"""

    def where(self) -> tuple[str, list[object]]:
        terms, values = ["1"], list[object]()
        if self.steps:
            terms.append(f"step IN ({','.join('?' * len(self.steps))})")
            values += self.steps
        if self.older_than is not None:
            lately = "SELECT number FROM used JOIN usage ON usage.id = used.usage WHERE completed >= ?"
            terms.append(f"made < ? AND number NOT IN ({lately})")
            values += [time.time() - self.older_than] * 2
        if self.unused:
            terms.append("number NOT IN (SELECT number FROM used)")
        return " AND ".join(terms), values


Found = dict[str, tuple[int, int]]
"""completions and their bytes, by step"""


def shares(folder: Path) -> list[StepShare]:
    """What the cache holds, the largest share first. A run may be using it."""
    with _opened(folder) as db:
        rows = db.execute(
            "SELECT step, count(*), sum(length(value)), min(made), "
            "sum(number NOT IN (SELECT number FROM used)) FROM completions GROUP BY step ORDER BY 3 DESC"
        ).fetchall()
        runs = {
            step: (hits, hits + completions)
            for step, hits, completions in db.execute(
                "SELECT step, sum(hits), sum(completions) FROM usage GROUP BY step ORDER BY id"
            )
        }
    found = [
        StepShare(step, count, size, oldest, unused, *runs.pop(step, (0, 0)))
        for step, count, size, oldest, unused in rows
    ]
    return found + [StepShare(step, 0, 0, 0, 0, *run) for step, run in runs.items() if run[1]]


def outputs(folder: Path) -> list[str]:
    """The output directories whose last complete run is known."""
    with _opened(folder) as db:
        return [name for (name,) in db.execute("SELECT DISTINCT output FROM usage WHERE completed ORDER BY output")]


def selected(folder: Path, selection: Selection) -> Found:
    """What a selection has."""
    with _opened(folder) as db:
        return _found(db, *selection.where())


def prune(folder: Path, selection: Selection) -> tuple[Found, str]:
    """Deletes completions and gives the disk their space back; the text says why not, if it cannot.

    Raises:
        StopRun: the disk is full or cannot be written; then nothing is deleted.
    """
    with _opened(folder, changing=True) as db:
        return _delete(db, *selection.where())


def delete_all(folder: Path) -> int:
    """Deletes the whole file and begins a new one; returns how many completions it had."""
    found = sum(share.completions for share in shares(folder))
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    for note in (folder / BATCHES).glob("*.json"):  # what was asked by the batch is known there, too
        note.unlink(missing_ok=True)
    repair(folder)
    return found


def record(
    folder: Path, output: str, runs: Mapping[str, tuple[int, int]], steps: Sequence[str], uses: Iterable[Path] | None
) -> None:
    """Notes what a command had of the cache.

    Args:
        folder: the cache's.
        output: the command's output directory, or its URL.
        runs: by step, completions from the cache and completions paid for.
        steps: all steps of the recipe; what is known of others is forgotten.
        uses: of a run that has come to its end, the files of keys that its steps have left (see `Cache`).
    """
    uses = list(uses) if uses is not None else None
    with _opened(folder, changing=True) as db, transaction(db):
        gone = f"output = ? AND step NOT IN ({','.join('?' * len(steps))})"
        db.execute(f"DELETE FROM used WHERE usage IN (SELECT id FROM usage WHERE {gone})", (output, *steps))
        db.execute(f"DELETE FROM usage WHERE {gone}", (output, *steps))
        for step, (hits, completions) in runs.items():
            db.execute(
                "INSERT INTO usage (output, step, hits, completions) VALUES (?, ?, ?, ?) ON CONFLICT (output, step) "
                "DO UPDATE SET hits = excluded.hits, completions = excluded.completions",
                (output, step, hits, completions),
            )
        if uses is None:
            return
        for step in runs:
            (usage,) = db.execute("SELECT id FROM usage WHERE (output, step) = (?, ?)", (output, step)).fetchone()
            db.execute("UPDATE usage SET completed = ? WHERE id = ?", (int(time.time()), usage))
            db.execute("DELETE FROM used WHERE usage = ?", (usage,))
            for path in uses:
                if path.name.split(".")[1] == step:
                    insert = f"INSERT OR IGNORE INTO used SELECT {usage:d}, number FROM completions WHERE key = ?"
                    db.executemany(insert, _keys(path))


def clean(folder: Path, output: str, steps: Sequence[str]) -> tuple[Found, str]:
    """As `prune`: what the last complete run into an output directory has used in these steps, unless another step of
    it has, too, or that of another directory."""
    ours = f"output = ? AND step IN ({','.join('?' * len(steps))})"
    of = "SELECT number FROM used JOIN usage ON usage.id = used.usage WHERE"
    where = f"number IN ({of} {ours}) AND number NOT IN ({of} NOT ({ours}))"
    with _opened(folder, changing=True) as db:
        return _delete(db, where, [output, *steps] * 2)


def settle(
    recipe: Recipe, counts: Sequence[StepCounts], uses: Iterable[Path] | None, tell: Callable[[str], None]
) -> None:
    """Notes what a run had of its cache and, if the recipe says so, deletes what it used. Its results stand already, so
    that what is wrong with the cache is told, not raised. `uses` as for `record`."""
    folder, steps = recipe.cache_dir, [step.name for step in recipe.steps]
    runs = {step.name: (step.whole.hits, step.whole.completions) for step in counts}
    spare = [name for name in steps if not recipe.cache.keeps(name)]
    deleted: Found = {}
    note = ""
    try:
        output = recipe.output_url or str(recipe.output_dir.resolve())
        record(folder, output, runs, steps, uses)
        if spare and uses is not None and counts[-1].name == steps[-1] and counts[-1].whole.given:
            deleted, note = clean(folder, output, spare)
    except StopRun as error:
        tell(f"the results are complete, but: {error}")
    if deleted:
        count = sum(completions for completions, _ in deleted.values())
        tell(f"cache.keep: deleted {count} completions of this run from {folder}{f'; {note}' if note else ''}")


def _found(db: sqlite3.Connection, where: str, values: Sequence[object]) -> Found:
    rows = db.execute(f"SELECT step, count(*), sum(length(value)) FROM completions WHERE {where} GROUP BY step", values)
    return {step: (count, size) for step, count, size in rows}


def _delete(db: sqlite3.Connection, where: str, values: Sequence[object]) -> tuple[Found, str]:
    with transaction(db):
        found = _found(db, where, values)
        db.execute(f"DELETE FROM completions WHERE {where}", values)
        db.execute("DELETE FROM used WHERE number NOT IN (SELECT number FROM completions)")
    try:
        db.execute("VACUUM")  # takes as much free space as what is left
    except sqlite3.Error as error:
        return found, f"the disk has not got the space back ({error}), later completions will use it"
    return found, ""


def _keys(path: Path) -> Iterator[tuple[bytes]]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for at in range(0, len(chunk), 16):
                yield (chunk[at : at + 16],)


@contextlib.contextmanager
def _opened(folder: Path, changing: bool = False) -> Iterator[sqlite3.Connection]:
    path = folder / FILE_NAME
    try:
        with closing(connect(path)) as db:
            configure(db)
            yield db
    except (sqlite3.Error, OSError) as error:
        raise StopRun(f"cannot use the cache {path}: {error}") from error
    if changing:
        mark(folder)
