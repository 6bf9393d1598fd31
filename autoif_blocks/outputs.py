"""The files of a run: merged from the tasks' parts, sorted by id, and put in place whole.

Nothing is held in memory but ids and positions, so a file may be larger than the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from .errors import StopRun

CACHE_LOCK = ".run.lock"
"""held by a run in its cache's folder"""
_ID = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*")')  # every row is written with its id first


@contextlib.contextmanager
def held(folder: Path, name: str, remedy: str) -> Iterator[None]:
    """Keeps other runs out of a folder. Two that share a cache would both pay for what both ask, and one could delete
    what the other replays.

    Raises:
        StopRun: another run is using it, or it cannot be written.
    """
    lock = FileLock(folder / name, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StopRun(f"another run is using {folder}: wait for it, or {remedy}") from error
    except OSError as error:
        raise StopRun(f"cannot write into {folder}: {error.strerror or error}; {remedy}") from error
    try:
        yield
    finally:
        lock.release()


def merge(parts: Iterable[Path], target: Path) -> int:
    """Merges JSONL parts into `target`, sorted by id and then by content; returns the number of rows.

    A `.txt` target gets the bare `line` of each row. The file appears under its name only when it is complete.

    Raises:
        StopRun: the disk is full or cannot be written.
    """
    files = [path.open("rb") for path in sorted(parts) if path.is_file()]
    try:
        index = sorted(_index(files))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.tmp")
        with aside.open("wb") as out:
            # Equal ids hold equal records almost always; where they do not, the content decides, not the arrival.
            for lines in _by_id(files, index):
                for line in sorted(lines):
                    out.write(json.loads(line)["line"].encode() + b"\n" if target.suffix == ".txt" else line)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(target)
    except OSError as error:
        raise StopRun(
            f"cannot write {target}: {error.strerror}; completions are kept, run again to continue"
        ) from error
    finally:
        for file in files:
            file.close()
    return len(index)


def _index(files: Sequence[BinaryIO]) -> Iterator[tuple[str, int, int, int]]:
    for number, file in enumerate(files):
        position = 0
        for line in file:
            match = _ID.match(line)
            assert match is not None, f"a row without an id: {line[:80]!r}"
            yield json.loads(match[1]), number, position, len(line)
            position += len(line)


def _by_id(files: Sequence[BinaryIO], index: list[tuple[str, int, int, int]]) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    last: str | None = None
    for record_id, number, position, length in index:
        if record_id != last and lines:
            yield lines
            lines = []
        last = record_id
        files[number].seek(position)
        lines.append(files[number].read(length))
    if lines:
        yield lines


def count_rows(path: Path) -> int:
    """The number of rows of a JSONL file; 0 if it is not there."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def write_json(path: Path, value: object) -> None:
    """Writes a small JSON file whole: aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
