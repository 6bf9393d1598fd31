"""Completions on disk, by the hash of what was asked: a second run replays what the first one paid for.

The key is the whole rendered request (model, messages, sampling options, sample index) and nothing else: not the
endpoint, not the key, not the step's name. A changed prompt therefore misses, and only for the requests that it
touches; an unchanged one hits from any recipe that shares the file.

One SQLite file in WAL mode. Writes collect in memory; the run commits them every `flush_interval` seconds and at its
end, so a kill -9 costs at most that many seconds of completions.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .errors import StopRun

SCHEMA_VERSION = 1
FILE_NAME = "completions.sqlite"


def request_key(request: Mapping[str, Any], index: int) -> bytes:
    """16 bytes that stand for sample `index` of a request; the order of its options does not matter."""
    canonical = json.dumps([request, index], sort_keys=True, ensure_ascii=True)
    return blake2b(canonical.encode(), digest_size=16).digest()


class Cache:
    """A dictionary of completions that outlives the process. Threads and processes may share it."""

    def __init__(self, folder: str | Path, flush_interval: float = 5.0) -> None:
        """Opens (or makes) the file in `folder`.

        Raises:
            StopRun: the file is not a cache of this version, or the folder cannot be written.
        """
        self.path = Path(folder) / FILE_NAME
        self.flush_interval = flush_interval
        self._pending: dict[bytes, str] = {}
        self._failure: StopRun | None = None
        self._lock = threading.Lock()
        self.last_flush = time.monotonic()
        """when pending completions were last written, on the monotonic clock"""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Its own locking suffices: `check_same_thread` would forbid closing from the thread that opened it.
            self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
                )
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                self._db.close()
                raise StopRun(
                    f"{self.path} is a cache of version {version}, this is {SCHEMA_VERSION}: use another cache_dir"
                )
        except (sqlite3.Error, OSError) as error:
            raise StopRun(f"cannot use the cache {self.path}: {error}; delete it or use another cache_dir") from error

    def get_many(self, keys: Sequence[bytes]) -> list[str | None]:
        """The values, in the order of the keys; None where there is none."""
        with self._lock:
            marks = ",".join("?" * len(keys))
            rows = self._db.execute(f"SELECT key, value FROM completions WHERE key IN ({marks})", list(keys))
            found = dict(rows.fetchall())
            return [self._pending.get(key, found.get(key)) for key in keys]

    def put(self, key: bytes, value: str) -> None:
        """Keeps a value: visible at once, on disk with the next `flush`.

        Raises:
            StopRun: an earlier flush failed.
        """
        if self._failure is not None:  # a write in the background failed: stop paying for what cannot be kept
            raise self._failure
        with self._lock:
            self._pending[key] = value

    def flush(self) -> None:
        """Writes what is pending.

        Raises:
            StopRun: the disk is full or gone; nothing that was committed before is harmed.
        """
        with self._lock:
            self.last_flush = time.monotonic()
            if not self._pending:
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO completions VALUES (?, ?)", self._pending.items())
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._failure = StopRun(f"cannot write the cache {self.path}: {error}")
                raise self._failure from error
            self._pending.clear()

    def close(self) -> None:
        """Flushes and closes. The WAL is folded into the one file."""
        try:
            self.flush()
        finally:
            self._db.close()
