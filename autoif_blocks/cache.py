"""Completions on disk, by the hash of what was asked: a second run replays what the first one paid for.

The key is the whole rendered request (model, messages, sampling options, sample index) and nothing else: not the
endpoint, not the key, not the step's name. A changed prompt therefore misses, and only for the requests that it
touches; an unchanged one hits from any recipe that shares the file.

One SQLite file in WAL mode. Writes collect in memory; the run commits them every `flush_interval` seconds (sooner
where they come fast) and at its end, so a kill -9 costs at most that many seconds of completions.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import StopRun
from .records import compact_json

SCHEMA_VERSION = 1
FILE_NAME = "completions.sqlite"
_MANY = 1_000  # a few MB
_ROWS = 100  # a statement; SQLite of any age takes 999 values
_INSERT = "INSERT OR REPLACE INTO completions VALUES (?,?)"


def request_keys(request: Mapping[str, Any], start: int, n: int) -> list[bytes]:
    """What stands for samples `start` to `start + n - 1` of a request; the order of its options does not matter."""
    whole = blake2b(compact_json(request, sort_keys=True), digest_size=16)
    keys = []
    for index in range(start, start + n):
        digest = whole.copy()
        digest.update(b"#%d" % index)
        keys.append(digest.digest())
    return keys


class Cache:
    """A dictionary of completions that outlives the process. Threads and processes may share it."""

    def __init__(self, folder: str | Path, flush_interval: float = 5.0) -> None:
        """Opens (or makes) the file in `folder`.

        Raises:
            StopRun: the file is not a cache of this version, or the folder cannot be written.
        """
        self.path = Path(folder) / FILE_NAME
        self.flush_interval = flush_interval
        self.last_flush = time.monotonic()
        """when pending completions were last written, on the monotonic clock"""
        self._pending: dict[bytes, str] = {}
        self._writing: dict[bytes, str] = {}
        self._failure: StopRun | None = None
        self._lock = threading.Lock()  # of the two dictionaries and the reader
        self._flushing = threading.Lock()  # of the writer
        with contextlib.ExitStack() as undo, self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for another process that turns the same new file to WAL mode.
            with FileLock(self.path.parent / ".completions.lock", timeout=60, poll_interval=0.01):
                # Two connections, so that the event loop reads while another thread waits for the disk.
                self._writer, self._reader = (undo.enter_context(contextlib.closing(self._connect())) for _ in range(2))
                self._prepare()
            undo.pop_all()

    def get_many(self, keys: Sequence[bytes]) -> list[str | None]:
        """The values, in the order of the keys; None where there is none.

        Raises:
            StopRun: the file is damaged.
        """
        marks = ",".join("?" * len(keys))
        try:
            with self._lock:
                rows = self._reader.execute(f"SELECT key, value FROM completions WHERE key IN ({marks})", keys)
                found = dict(rows.fetchall())
                for unwritten in (self._writing, self._pending):
                    if unwritten:
                        found.update((key, unwritten[key]) for key in keys if key in unwritten)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return [found.get(key) for key in keys]

    def put(self, key: bytes, value: str) -> None:
        """Keeps a value: visible at once, on disk with the next `flush`.

        Raises:
            StopRun: the last flush failed. The value is kept all the same.
        """
        with self._lock:
            self._pending[key] = value
        if self._failure is not None:  # a write in the background failed: stop paying for what may be lost
            raise self._failure

    @property
    def due(self) -> bool:
        """Whether it is time to flush: an interval has passed, or much waits in memory."""
        return time.monotonic() - self.last_flush >= self.flush_interval or len(self._pending) >= _MANY

    def flush(self) -> None:
        """Writes what is pending.

        Raises:
            StopRun: the disk is full or gone; nothing that was committed before is harmed.
        """
        with self._flushing:
            with self._lock:
                self.last_flush = time.monotonic()
                self._writing, self._pending = self._pending, {}
            try:
                self._write()
                self._failure = None
            except sqlite3.Error as error:
                with self._lock:
                    self._pending = {**self._writing, **self._pending}
                self._failure = StopRun(f"cannot write the cache {self.path}: {error}")
                raise self._failure from error
            finally:
                with self._lock:
                    self._writing = {}

    def close(self) -> None:
        """Flushes and closes. The WAL is folded into the one file."""
        try:
            self.flush()
        finally:
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        # Our own locking suffices: `check_same_thread` would forbid closing from the thread that opened it.
        return sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)

    def _prepare(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise StopRun(
                f"{self.path} is a cache of version {version}, this is {SCHEMA_VERSION}: "
                "use another cache_dir, or --no-resume, which deletes it"
            )
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=NORMAL")
        if version == 0:
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
            )
            self._writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _write(self) -> None:
        if self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                pairs = iter(self._writing.items())
                for _ in range(len(self._writing) // _ROWS):
                    # Many rows a statement: SQLite lets other threads run while it works on one, and only then.
                    some = itertools.chain.from_iterable(itertools.islice(pairs, _ROWS))
                    self._writer.execute(_INSERT + ",(?,?)" * (_ROWS - 1), list(some))
                self._writer.executemany(_INSERT, pairs)
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StopRun:
        return StopRun(
            f"cannot use the cache {self.path}: {error}. "
            "If it is damaged: --no-resume deletes it and asks again, another cache_dir leaves it where it is"
        )
