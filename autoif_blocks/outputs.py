"""The files of a run: merged from the tasks' parts, sorted by id, and put in place whole.

Files may be larger than the machine's memory: what does not fit is sorted in pieces on disk, beside the parts.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CONTINUES, StopRun, disk_trouble

CACHE_LOCK = ".run.lock"
"""held by a run in its cache's folder"""
_ID = re.compile(rb'\{"id": ?"((?:[^"\\]|\\.)*)"')  # every row is written with its id first
_PIECE = 1 << 20  # bytes of rows that are sorted in memory
_FAN_IN = 64  # files that are merged at a time


@contextlib.contextmanager
def held(folder: Path, name: str, remedy: str, place: str = "") -> Iterator[None]:
    """Keeps other runs out of a folder. Two that share a cache would both pay for what both ask, and one could delete
    what the other replays. `place` is what a person calls the folder, if not by its path.

    Raises:
        StopRun: another run is using it, or it cannot be written.
    """
    lock = FileLock(folder / name, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StopRun(f"another run is using {place or folder}: wait for it, or {remedy}") from error
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
    files = [path for path in sorted(parts) if path.is_file()]
    rows = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.tmp")
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(aside.open("wb"))
            for line in _in_order(files, stack):
                out.write(json.loads(line)["line"].encode() + b"\n" if target.suffix == ".txt" else line)
                rows += 1
            out.flush()
            os.fsync(out.fileno())
        aside.replace(target)
    except OSError as error:
        raise disk_trouble(error, target) or StopRun(f"cannot write {target}: {error}. {CONTINUES}") from error
    return rows


def _in_order(files: Sequence[Path], stack: contextlib.ExitStack) -> Iterable[bytes]:
    """The lines of all files in order."""
    pieces = _pieces(files)
    if sum(path.stat().st_size for path in files) <= _PIECE:
        return next(pieces, [])
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sorting-", dir=files[0].parent)))
    runs = [_written(lines, folder) for lines in pieces]
    while len(runs) > _FAN_IN:
        with contextlib.ExitStack() as some:
            merged = _written(_merged(runs[:_FAN_IN], some), folder)
        for path in runs[:_FAN_IN]:
            path.unlink()
        runs = [*runs[_FAN_IN:], merged]
    return _merged(runs, stack)


def _pieces(files: Sequence[Path]) -> Iterator[list[bytes]]:
    """The lines of all files, as many as one may hold, each piece in order."""
    lines: list[bytes] = []
    size = 0
    for path in files:
        with path.open("rb") as file:
            for line in file:
                lines.append(line)
                size += len(line)
                if size >= _PIECE:
                    yield sorted(lines, key=_place)
                    lines, size = [], 0
    if lines:
        yield sorted(lines, key=_place)


def _place(line: bytes) -> tuple[bytes, bytes]:
    """What a row is sorted by. Equal ids hold equal records almost always; where they do not, the content decides, not
    the arrival. The order of UTF-8 is that of its characters."""
    name = raw_id(line)
    assert name is not None, f"a row without an id: {line[:80]!r}"
    return name, line


def raw_id(line: bytes) -> bytes | None:
    """The id of a row in UTF-8, lone surrogates included; None of a line that is no row."""
    match = _ID.match(line)
    if match is None:
        return None
    name = match[1]
    try:
        return json.loads(b'"%b"' % name).encode("utf-8", "surrogatepass") if b"\\" in name else name
    except ValueError:
        return None


def row_id(line: bytes) -> str | None:
    """The id of a row, without reading the rest; None of a line that is no row."""
    name = raw_id(line)
    return None if name is None else name.decode("utf-8", "replace")


def _written(lines: Iterable[bytes], folder: Path) -> Path:
    number, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(number, "wb") as file:
        file.writelines(lines)
    return Path(name)


def _merged(runs: Iterable[Path], stack: contextlib.ExitStack) -> Iterator[bytes]:
    return heapq.merge(*(stack.enter_context(path.open("rb")) for path in runs), key=_place)


def count_rows(path: Path) -> int:
    """The number of rows of a JSONL file, or of the shards that it was split into; 0 if it is not there."""
    return sum(1 for _ in lines_of(path))


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a JSONL file, or of the shards that it was split into; none if it is not there."""
    for part in [path] if path.is_file() else shards_of(path):
        with part.open("rb") as file:
            yield from file


def shards_of(path: Path) -> list[Path]:
    """The files that a JSONL file was split into, in order."""
    return sorted(path.with_suffix("").glob("shard_*.jsonl"))


def split(path: Path, shards: int) -> None:
    """Replaces a JSONL file by so many, in a folder of its name, which one after another hold the same bytes. The file
    goes last, so that there is a whole one at any time.

    Raises:
        StopRun: the disk is full or cannot be written; the file stays.
    """
    rows, folder = count_rows(path), path.with_suffix("")
    names = [folder / f"shard_{number:05d}.jsonl" for number in range(shards)]
    try:
        folder.mkdir(exist_ok=True)
        with path.open("rb") as file:
            for number, name in enumerate(names):
                aside = name.with_name(f".{name.name}.tmp")
                with aside.open("wb") as out:
                    out.writelines(itertools.islice(file, rows * (number + 1) // shards - rows * number // shards))
                    out.flush()
                    os.fsync(out.fileno())
                aside.replace(name)
        for old in set(shards_of(path)) - set(names):
            old.unlink()
        path.unlink()
    except OSError as error:
        raise StopRun(f"cannot write {folder}: {error.strerror}; {path} holds all records") from error


def forget_shards(path: Path) -> None:
    """Deletes the files that an earlier one was split into."""
    for shard in shards_of(path):
        shard.unlink()
    with contextlib.suppress(OSError):  # not there, or not ours alone
        path.with_suffix("").rmdir()


@contextlib.contextmanager
def whole(target: Path, remedy: str = "") -> Iterator[Path]:
    """A path beside the target, which becomes the target when all is written.

    Raises:
        StopRun: it cannot be written; `remedy` says what to do.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(target)
    except OSError as error:
        hint = f"; {remedy}" if remedy else ""
        raise StopRun(f"cannot write {target}: {error.strerror or error}{hint}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def json_text(value: object) -> str:
    """JSON for people, as in `run.json`."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Writes a small JSON file whole: aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json_text(value), encoding="utf-8")
    aside.replace(path)
