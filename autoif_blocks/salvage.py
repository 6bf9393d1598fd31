"""A damaged cache is mended before a run: whatever row can still be read, wherever it stands, is saved.

The saved rows go into a new file; the damaged one is kept beside it, as `completions.sqlite.damaged-<time>`.

A file that a newer version has made, or another program, is not touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from .cache import (
    APPLICATION_ID,
    FILE_NAME,
    SCHEMA_VERSION,
    TABLES,
    checked_mark,
    checksum,
    connect,
    create,
    fits,
    identity_of,
    remedy,
    transaction,
)
from .carving import Hint, Remains, remains
from .errors import StopRun

_VERSION_1 = "CREATE TABLE completions (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
_SMALLEST = 512  # bytes
_OF_VERSION_1 = "was of version 1"
_INSERT = "INSERT OR IGNORE INTO completions (key, made, step, crc, value) VALUES (?, ?, ?, ?, ?)"
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}


def repair(folder: Path) -> str | None:
    """Brings the cache of a folder into a state that `Cache` opens, and makes it if there is none. No run may be using
    it. A file that is as it was last found in order is not looked through again.

    Returns:
        What was wrong and what became of it, in a sentence; None if all was well.

    Raises:
        StopRun: it belongs to a newer version or to another program, or the disk is full or cannot be written.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".completions.lock", timeout=60):
            said = _Repair(path).run()
        mark(folder)
        return said
    except (sqlite3.Error, OSError) as error:
        raise StopRun(f"cannot mend the cache {path}: {error}; it is left as it was; {remedy(error, path)}") from error


def mark(folder: Path) -> None:
    """Notes that the cache is in order as it is now. Nobody may have it open."""
    with contextlib.suppress(OSError):  # it costs a look through, at the next start
        checked_mark(folder).write_text(_state_of(folder / FILE_NAME))


def _state_of(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


class _Repair:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = path.with_name(f"{FILE_NAME}-wal")
        self.wal_copy = path.with_name(".completions.wal")
        self.mended = path.with_name(".completions.mended")

    def run(self) -> str | None:
        if self.mended.exists():  # an earlier repair was killed between its last two steps
            self._put_in_place()
        has_wal = self.wal.is_file() and self.wal.stat().st_size > 0
        if not has_wal and not self.wal_copy.exists():
            if not self.path.exists():
                with closing(connect(self.path)) as db:
                    create(db)
                return None
            with contextlib.suppress(OSError):
                if checked_mark(self.path.parent).read_text() == _state_of(self.path):
                    return None
        if has_wal:  # SQLite forgets the journal's unreadable end, and deletes it when it closes the file
            shutil.copyfile(self.wal, self.wal_copy)
        said = self._look()
        self.wal_copy.unlink(missing_ok=True)
        return said

    def _look(self) -> str | None:
        # SQLite deletes the journal of a file that is empty, and takes one of a few bytes for a new one.
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < _SMALLEST:
            return self._rebuild("was cut off" if size else "was empty")
        try:
            with closing(connect(self.path)) as db:
                wrong, said = self._examine(db)
        except UnicodeDecodeError:  # a name in the schema, or SQLite's own complaint about it
            return self._rebuild("was damaged (its schema)")
        except sqlite3.DatabaseError as error:
            code = error.sqlite_errorcode & 0xFF
            if code in _PASSING or (code == sqlite3.SQLITE_READONLY and not os.access(self.path, os.W_OK)):
                raise
            return self._rebuild(f"was damaged ({error})")
        return self._rebuild(wrong) if wrong else said

    def _examine(self, db: sqlite3.Connection) -> tuple[str, str | None]:
        """What is wrong with the file, or what was, if it could be mended in place."""
        tables = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        application, version = identity_of(db)
        if tables == {"completions": _VERSION_1} and version == 1:
            return _OF_VERSION_1, None
        if not tables and application in (0, APPLICATION_ID):
            create(db)  # a run was killed while it made the file
            return "", None
        if tables != TABLES:
            self._refuse_what_is_not_ours(application, version)
        if tables != TABLES or (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            return "was damaged (its first page)", None
        frames = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        with transaction(db):
            pass  # it can be written
        (answer,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            return f"was damaged ({answer.splitlines()[-1]})", None
        if not all(fits(*row) for row in db.execute("SELECT key, crc, value FROM completions")):
            return "was damaged (a checksum does not fit)", None
        if not self.wal_copy.exists():
            return "", None
        with remains(self.path, self.wal_copy) as found:
            if not found.torn(frames):
                return "", None
            saved, lost = _save(found, db)
        kept = _aside(self.wal_copy, f"{self.path}.damaged", "-wal")
        return (
            "",
            f"The last write to the cache {self.path} was cut off: {_told(saved, lost)}; what is left is in {kept}",
        )

    def _refuse_what_is_not_ours(self, application: int, version: int) -> None:
        if application != APPLICATION_ID:
            raise StopRun(f"{self.path} belongs to another program: it is left as it is, use another cache_dir")
        if version > SCHEMA_VERSION:
            raise StopRun(
                f"{self.path} is a cache of version {version}, this is {SCHEMA_VERSION}: it is left as it is, "
                "use a newer autoif-blocks or another cache_dir"
            )

    def _rebuild(self, why: str) -> str:
        """Writes what can be read into a new file and puts that in place."""
        begun = self.mended.with_suffix(".new")
        for suffix in ("", "-wal", "-shm"):
            begun.with_name(begun.name + suffix).unlink(missing_ok=True)
        moved = False
        with closing(sqlite3.connect(begun, isolation_level=None)) as db:
            create(db)
            if why == _OF_VERSION_1:
                saved, moved = self._copy_version_1(db)
                lost = 0
            else:
                with remains(self.path, self.wal_copy) as found:
                    saved, lost = _save(found, db)
        with begun.open("rb") as file:
            os.fsync(file.fileno())
        begun.replace(self.mended)
        if moved:
            self.path.unlink()
            self.wal_copy.unlink(missing_ok=True)
        kept = self._put_in_place()
        if moved:
            return f"The cache {self.path} {why}: its {_counted(saved)} are now in one of version {SCHEMA_VERSION}"
        return f"The cache {self.path} {why}: {_told(saved, lost)}" + (
            f"; the file as it was is {kept}" if kept else ""
        )

    def _put_in_place(self) -> str:
        """Moves the old file aside and the new one to its place. May be killed at any point and called again."""
        if not self.wal_copy.exists() and self.wal.exists():
            self.wal.replace(self.wal_copy)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        kept = []
        for path, suffix in ((self.path, ""), (self.wal_copy, "-wal")):
            if path.exists() and path.stat().st_size:
                kept.append(_aside(path, f"{self.path}.damaged", suffix))
        self.mended.replace(self.path)
        self.wal_copy.unlink(missing_ok=True)
        return " and ".join(kept)

    def _copy_version_1(self, db: sqlite3.Connection) -> tuple[int, bool]:
        """Reads from both ends, as far as it goes; returns the number of rows, and whether those are all."""
        made, whole = int(self.path.stat().st_mtime), True
        with closing(connect(self.path)) as old, transaction(db):
            old.text_factory = bytes
            for order in ("ASC", "DESC"):
                try:
                    for key, value in old.execute(f"SELECT key, value FROM completions ORDER BY key {order}"):
                        if isinstance(key, bytes) and isinstance(value, bytes) and len(key) == 16 and _is_json(value):
                            db.execute(_INSERT, (key, made, "", checksum(key, value), value))
                        else:
                            whole = False
                    break
                except sqlite3.DatabaseError:
                    whole = False
        return _count(db), whole


def _save(found: Remains, db: sqlite3.Connection) -> tuple[int, int]:
    """Inserts the rows that are not there yet; returns how many, and how many more there are known to have been."""
    before = _count(db)
    db.execute("CREATE TEMP TABLE hints (from_row INTEGER, key BLOB, PRIMARY KEY (from_row, key)) WITHOUT ROWID")
    with transaction(db):
        for piece in found.pieces():
            if isinstance(piece, Hint):
                db.execute("INSERT OR IGNORE INTO hints VALUES (?, ?)", (piece.from_row, piece.key))
            else:
                db.execute(_INSERT, piece)
    missing = "SELECT count(*) FROM hints WHERE from_row = ? AND key NOT IN (SELECT key FROM completions)"
    # Not their sum: the index has the keys of rows that cannot be read, too.
    lost = max(db.execute(missing, (from_row,)).fetchone()[0] for from_row in (True, False))
    return _count(db) - before, lost


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])


def _counted(completions: int) -> str:
    return f"{completions} completion{'s' * (completions != 1)}"


def _told(saved: int, lost: int) -> str:
    return f"{_counted(saved)} saved, {f'at least {lost}' if lost else 'none that is known of'} lost"


def _aside(path: Path, base: str, suffix: str = "") -> str:
    """Moves a file to a name that says when, and that no other file has; returns the name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        target = Path(f"{base}-{stamp}{f'-{number}' if number > 1 else ''}{suffix}")
        if not target.exists():
            break
    path.replace(target)
    return target.name


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True
