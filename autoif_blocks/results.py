"""The files of a run in its output directory: put there whole, and never replaced by less."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import AutoIFError
from .outputs import count_rows, forget_shards, merge, split
from .state import StepCounts
from .steps import Step

_FOLDERS = ("", "dropped", "discarded")


def place(
    work: Path, output: Path, counts: Sequence[StepCounts], stay: Collection[str] = (), replace: bool = True,
    shards: int | None = None,
) -> dict[str, int]:  # fmt: skip
    """Merges what the tasks have left in `work` into the files in `output`, and returns the rows of each.

    Args:
        stay: the steps whose files are left alone.
        replace: False leaves alone, too, whatever else steps write if there is more of it than this run has.
        shards: how many files the last step's is split into.
    """
    parts: dict[str, list[Path]] = {}
    for folder in work.glob("stage-*/*/"):
        for path in _files(folder):
            parts.setdefault(str(path.relative_to(folder)), []).append(path)
    parts.pop("stage.jsonl", None)
    of_steps = {f"{folder}/{step.file}".lstrip("/"): step.name for step in counts for folder in _FOLDERS}
    rows: dict[str, int] = {}
    for file, paths in sorted(parts.items()):
        less = not replace and file not in of_steps and sum(map(count_rows, paths)) < count_rows(output / file)
        if of_steps.get(file) not in stay and not less:
            rows[file] = merge(paths, output / file)
            forget_shards(output / file)
    for file, step in of_steps.items():
        if step not in stay and file not in rows:  # a run that was stopped may not have come to all of its steps
            (output / file).unlink(missing_ok=True)
            forget_shards(output / file)
    if shards is not None and counts[-1].file in rows:
        split(output / counts[-1].file, shards)
    return rows


def partial_before(steps: Sequence[Step], first: int, earlier: Mapping[str, Any]) -> str | None:
    """What to say where a run from step `first` on reads what a stopped one, of this `run.json`, has left."""
    left = {row["name"]: row["unfinished"] for row in earlier.get("steps", []) if row.get("unfinished")}
    short = [step.name for step in steps[: first - 1] if step.name in left]
    if not short:
        return None
    return (
        f"step {first} reads what a stopped run has left: {left[short[0]]} records had not got through step "
        f"'{short[0]}'. To have them too, run from step '{short[0]}' on"
    )


def further(output: Path, counts: Sequence[StepCounts]) -> set[str]:
    """The steps whose files hold more records, delivered and dropped, than these counts tell of."""
    return {
        step.name
        for step in counts
        if sum(count_rows(output / folder / step.file) for folder in ("", "dropped"))
        > step.whole.given + step.whole.dropped.total()
    }


def check_counts(counts: Sequence[StepCounts], rows: dict[str, int], stay: Collection[str] = ()) -> None:
    """Checks that all records of a whole run are where they belong; files of steps that `stay` are another run's.

    Raises:
        AutoIFError: a block lost or made up a record.
    """
    for before, after in itertools.pairwise(counts):
        if before.whole.given != after.whole.taken:
            raise AutoIFError(
                f"step '{before.name}' gave {before.whole.given} records, '{after.name}' took {after.whole.taken}"
            )
    for step in counts:
        whole, dropped = step.whole, step.whole.dropped.total()
        written, logged = rows.get(step.file, 0), rows.get(f"dropped/{step.file}", 0)
        if step.name in stay:
            written, logged = whole.given, dropped
        if not step.balanced or written != whole.given or logged != dropped:
            raise AutoIFError(
                f"step '{step.name}': the counts do not add up: in {whole.taken} + created {whole.created}, "
                f"out {whole.given} ({written} in the file), dropped {dropped} ({logged} logged). "
                "This is a bug in a block: it lost or made up a record"
            )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
