"""Rows of a cache found in raw bytes, whatever has become of the file around them.

Nothing of a damaged file's structure is trusted. Its bytes, and those of its journal (the WAL), are searched for what
the head of a row looks like; a row counts if its checksum fits. So a row is lost only if its own bytes are.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .cache import PAGE, checksum

# SQLite's file format (sqlite.org/fileformat2.html). A row has a head, the types of its columns: its own length, NULL
# for the number, 16 bytes of key, an integer. No completion contains such bytes, as JSON has no control characters.
# An entry of the index on `key` has its length, a head, the key, and the number.
_ROW = re.compile(rb"[\x07-\x0d]\x00\x2c[\x01-\x06]")
_LENGTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # of an integer, by its type
_ENTRY = re.compile(
    b"(?:%s)(.{16})" % b"|".join(re.escape(bytes([19 + n, 3, 0x2C, kind])) for kind, n in _LENGTHS.items()), re.DOTALL
)
_SIZES = (0, 1, 2, 3, 4, 6, 8)
_LONGEST = 2 * 2**30  # a completion of a gigabyte is none
_MOST_LOCAL = PAGE - 35  # bytes of a row that stand on its own page; of a longer one, at least:
_LEAST_LOCAL = (PAGE - 12) * 32 // 255 - 23
_WAL_HEAD, _FRAME_HEAD = 32, 24
_FRAME = _FRAME_HEAD + PAGE

Row = tuple[bytes, int, str, int, bytes]
"""key, made, step, crc, value"""


@dataclass(frozen=True)
class Hint:
    """There is, or was, a row of this key: it stands there but cannot be read, or the index has it."""

    key: bytes
    from_row: bool


class Remains:
    """A database file and its journal, by pages; either may be missing."""

    def __init__(self, main: IO[bytes] | None, wal: IO[bytes] | None) -> None:
        self._main = main
        self._wal = wal
        size = max(0, os.fstat(wal.fileno()).st_size - _WAL_HEAD) if wal else 0
        heads = [_read(wal, _WAL_HEAD + at, _FRAME_HEAD) for at in range(0, size, _FRAME)]  # the last may be cut off
        self._frames = [(int.from_bytes(head[:4], "big"), head[8:16]) for head in heads]
        """the number of each frame's page, and the salt that tells whether it belongs to the latest writes"""
        self._newest = {page: frame for frame, (page, _) in enumerate(self._frames)}
        self._rest = size % _FRAME

    def torn(self, understood: int) -> bool:
        """Whether the journal has more than the frames that SQLite has understood."""
        head = _read(self._wal, 0, _WAL_HEAD)
        if understood <= 0:
            return bool(self._frames) or 0 < len(head) < _WAL_HEAD
        written = sum(1 for _ in itertools.takewhile(lambda frame: frame[1] == head[16:24], self._frames))
        return written > understood or (self._rest > 0 and written == len(self._frames))

    def pieces(self) -> Iterator[Row | Hint]:
        """What all pages hold, the newest versions first."""
        for number in reversed(range(len(self._frames))):
            yield from self._pieces_of(self._frame(number))
        pages = -(-os.fstat(self._main.fileno()).st_size // PAGE) if self._main else 0
        for number in range(1, pages + 1):
            yield from self._pieces_of(self._page(number))

    def _pieces_of(self, page: bytes) -> Iterator[Row | Hint]:
        for found in _ROW.finditer(page):
            if (head := _head(page, found.start())) is not None:
                # A page that the row goes on at may be newer than the row, or the one that is damaged.
                rows = (_row(page, found.start(), head, version) for version in (self._newest_page, self._page))
                broken = Hint(page[found.start() + page[found.start()] :][:16], from_row=True)
                yield next((row for row in rows if row is not None), broken)
        for entry in _ENTRY.finditer(page):
            yield Hint(entry[1], from_row=False)

    def _frame(self, number: int) -> bytes:
        return _read(self._wal, _WAL_HEAD + number * _FRAME + _FRAME_HEAD, PAGE)

    def _page(self, number: int) -> bytes:
        return _read(self._main, (number - 1) * PAGE, PAGE) if number > 0 else b""

    def _newest_page(self, number: int) -> bytes:
        return self._frame(self._newest[number]) if number in self._newest else self._page(number)


@contextlib.contextmanager
def remains(path: Path, wal: Path) -> Iterator[Remains]:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(p.open("rb", buffering=0)) if p.is_file() else None for p in (path, wal)]
        yield Remains(*files)


def _read(file: IO[bytes] | None, at: int, size: int) -> bytes:
    try:
        return os.pread(file.fileno(), size, at) if file else b""
    except OSError:  # a bad sector: the others may be good
        return b""


def _head(page: bytes, start: int) -> list[int] | None:
    """The sizes of a row's parts, if what begins at `start` is its head."""
    end, at = start + page[start], start + 1
    kinds: list[int] = []
    while at < min(end, len(page)):
        kind, more = 0, True
        while more and at < len(page):
            kind, more = kind << 7 | page[at] & 0x7F, page[at] >= 0x80
            at += 1
        kinds.append(kind)
    if at != end or len(kinds) != 6 or kinds[3] < 13 or not 12 <= kinds[5] < _LONGEST or kinds[4] > 6:
        return None
    return [_SIZES[kind] if kind < 7 else (kind - 12) // 2 for kind in kinds]


def _row(page: bytes, start: int, sizes: list[int], more: Callable[[int], bytes]) -> Row | None:
    """The row whose head begins at `start`, if its checksum fits. `more` has the pages that it may go on at."""
    at = page[start]
    whole = at + sum(sizes)
    local = whole
    if whole > _MOST_LOCAL:
        local = _LEAST_LOCAL + (whole - _LEAST_LOCAL) % (PAGE - 4)
        local = local if local <= _MOST_LOCAL else _LEAST_LOCAL
    data = bytearray(page[start : start + local])
    following = int.from_bytes(page[start + local : start + local + 4], "big")
    seen: set[int] = set()
    while len(data) < whole:
        piece = more(following) if following not in seen else b""
        if len(piece) <= 4:
            return None
        seen.add(following)
        following = int.from_bytes(piece[:4], "big")
        data += piece[4 : 4 + whole - len(data)]
    parts = []
    for size in sizes:
        parts.append(bytes(data[at : at + size]))
        at += size
    _, key, made, step, crc, value = parts
    check = int.from_bytes(crc, "big")
    if checksum(key, value) != check:
        return None
    return key, int.from_bytes(made, "big"), step.decode("utf-8", "replace"), check, value
