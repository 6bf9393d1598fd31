"""A remote cache: a whole file, and what has been paid for since it was sent, in small files beside it.

The small files lie where tasks keep their parts (`cache_parts.py`), and are put into the whole in the same way. A cache
may be large: a run that is under way, or is stopped, sends new completions alone, and the whole goes once a run has
come to its end.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from .cache import FILE_NAME, checked_mark, connect, create, transaction
from .cache_parts import fold, part_of
from .errors import StopRun
from .salvage import repair
from .storage import Remote

_PARTS = part_of(Path(), "").name


class CacheMirror:
    """A cache's folder here and there. What has been sent is noted in `kept`, which `save` keeps."""

    def __init__(self, remote: Remote, folder: Path, kept: dict[str, Any], save: Callable[[], None]) -> None:
        self._remote = remote
        self._folder = folder
        self._file = folder / FILE_NAME
        self._kept = kept
        self._save = save
        self._of_parts: dict[Path, int] = {}

    def bring(self) -> Iterator[str]:
        """Puts together what is there and what is here, and yields what there is to say."""
        there = self._there()
        if FILE_NAME in there:
            unsent = self._file.exists() and self._kept.get("whole") != self._state()
            if not unsent:
                for suffix in ("-wal", "-shm"):
                    self._file.with_name(f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
                checked_mark(self._folder).unlink(missing_ok=True)
            place = part_of(self._folder, "remote") / FILE_NAME if unsent else self._file
            self._remote.get(FILE_NAME, place)
            if not unsent:
                self._note(whole=self._state())
        for name in there:
            if name != FILE_NAME:
                self._remote.get(name, self._folder / name)
        if (said := repair(self._folder)) is not None:
            yield said
        yield from fold(self._folder)
        if FILE_NAME not in there or not unsent:
            self._note(last=self._row())

    def send_new(self) -> None:
        """Sends what is new since the last time."""
        last = self._kept.get("last") or [0, ""]
        # Numbers begin again in a file that was made anew or mended: a row that is not the same one tells.
        since = last[0] if self._key(last[0]) == last[1] else 0
        if sent := self._send(self._file, since):
            self._note(last=self._row(sent))
        for path in (self._folder / _PARTS).glob(f"*/{FILE_NAME}"):
            self._of_parts[path] = self._send(path, self._of_parts.get(path, 0)) or self._of_parts.get(path, 0)

    def send_whole(self, tell: Callable[[str], None]) -> None:
        """Sends the file if it has gained or lost anything; then the small ones there are not needed any more. Nobody
        may be using it."""
        if not self._file.exists() or (state := self._state()) == self._kept.get("whole"):
            return
        size = self._file.stat().st_size
        if size > 100_000_000:
            tell(f"sending the cache, {size / 1e9:.1f} GB, to {self._remote.url}")
        with closing(connect(self._file)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._remote.put(self._file, FILE_NAME)
        self._note(whole=state, last=self._row())
        self._remote.delete([name for name in self._there() if name != FILE_NAME])

    def delete(self) -> None:
        """Deletes what is there."""
        self._remote.delete(self._there())
        self._note(whole=None, last=None)

    def _there(self) -> list[str]:
        return [name for name in self._remote.files() if name == FILE_NAME or name.startswith(f"{_PARTS}/")]

    def _note(self, **values: Any) -> None:
        self._kept.update(values)
        self._save()

    def _send(self, path: Path, since: int) -> int:
        """Sends the rows of a file that come after one; returns the last of them, or 0 if there is none."""
        newest = _ask(path, "SELECT max(number) FROM completions")
        if newest is None or newest <= since:
            return 0
        folder = Path(tempfile.mkdtemp(prefix=".sending-", dir=self._folder))
        try:
            with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None, uri=True)) as db:
                create(db)
                db.execute("ATTACH ? AS whole", (f"{path.absolute().as_uri()}?mode=ro",))
                with transaction(db):
                    db.execute(
                        "INSERT INTO main.completions (key, made, step, crc, value) SELECT key, made, step, crc, value "
                        "FROM whole.completions WHERE number > ? AND number <= ? ORDER BY number",
                        (since, newest),
                    )
            self._remote.put(folder / FILE_NAME, f"{_PARTS}/sent-{uuid4().hex}/{FILE_NAME}")
        except sqlite3.Error as error:
            raise StopRun(f"cannot read the cache {path}: {error}") from error
        finally:
            shutil.rmtree(folder)
        return int(newest)

    def _row(self, number: int | None = None) -> list[Any]:
        """A row of the file, by default the last."""
        found = number or _ask(self._file, "SELECT max(number) FROM completions") or 0
        return [found, self._key(found)]

    def _key(self, number: int) -> str:
        return _ask(self._file, "SELECT lower(hex(key)) FROM completions WHERE number = ?", number) or ""

    def _state(self) -> list[Any]:
        """What changes when completions come or go, or are used by other steps; not when they are merely replayed."""
        counts = [_ask(self._file, f"SELECT count(*) FROM {table}") for table in ("completions", "used", "usage")]
        return [*counts, _ask(self._file, "SELECT max(number) FROM completions")]


def _ask(path: Path, query: str, *values: object) -> Any:
    """The first value that a query gives; None if there is none, or the file cannot be asked."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as db:
            row = db.execute(query, values).fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None
