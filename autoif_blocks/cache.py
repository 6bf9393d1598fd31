"""Completions on disk, by the hash of what was asked: a second run replays what the first one paid for.

The key is the whole rendered request (model, messages, sampling options, sample index) and nothing else: not the
endpoint, not the key, not the step's name. A changed prompt therefore misses, and only for the requests that it
touches; an unchanged one hits from any recipe that shares the file.

One SQLite file in WAL mode. Writes collect in memory; the run commits them every `flush_interval` seconds (sooner
where they come fast) and at its end, so a kill -9 costs at most that many seconds of completions. Every row carries a
checksum: one that no longer fits is asked again, never believed. `salvage.py` mends a damaged file before a run,
`upkeep.py` shows and prunes.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any
from zlib import crc32

from filelock import FileLock

from .errors import CONTINUES, StopRun
from .records import compact_json

APPLICATION_ID = 0x41494642  # "AIFB"
SCHEMA_VERSION = 2
PAGE = 4096  # bytes; `salvage.py` reads pages of a file whose head is lost
FILE_NAME = "completions.sqlite"
BATCHES = "batches"  # the folder beside it: what `mode: batch` has sent
_MANY = 1_000  # a few MB
# Rows in the order of their arrival, for half the size and a third of the work of a tree ordered by key; the value
# comes last, so that the rest of a row stands on one page. The texts are compared: a new version must change one.
TABLES = {
    "completions": "CREATE TABLE completions (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
    "made INTEGER NOT NULL, step TEXT NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL)",
    # What the last command into an output directory had of each step; `completed` is when one last ran it whole.
    "usage": "CREATE TABLE usage (id INTEGER PRIMARY KEY, output TEXT NOT NULL, step TEXT NOT NULL, hits INTEGER, "
    "completions INTEGER, completed INTEGER, UNIQUE (output, step))",
    "used": "CREATE TABLE used (usage INTEGER, number INTEGER, PRIMARY KEY (usage, number)) WITHOUT ROWID",
}
_ROWS = 100  # a statement; SQLite of any age takes 999 values
_PUT = """
    INSERT INTO completions (key, made, step, crc, value) VALUES {rows} ON CONFLICT (key) DO UPDATE
    SET made = excluded.made, step = excluded.step, crc = excluded.crc, value = excluded.value
"""


@dataclass(frozen=True)
class CacheConfig:
    """What becomes of a run's completions once the run has completed."""

    keep: bool | list[str] = True
    """whether the next run finds them; a list names the steps whose completions stay"""
    per_task: bool | None = None
    """whether each task writes a file of its own, which the run puts into the whole at its end: needed where tasks run
    on several machines. None: with the executors that do that"""

    def keeps(self, step: str) -> bool:
        return self.keep if isinstance(self.keep, bool) else step in self.keep


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

    def __init__(
        self, folder: str | Path, flush_interval: float = 5.0, uses: Path | None = None, whole: str | Path | None = None
    ) -> None:
        """Opens (or makes) the file in `folder`. With `uses`, a file `<uses>.<step>.used` collects the keys that each
        step was given or has put, 16 bytes each. With `whole`, the folder of a cache that nobody writes meanwhile, what
        the file does not have is looked for there (see `cache_parts.py`).

        Raises:
            StopRun: the file is not a cache of this version, or the folder cannot be written.
        """
        self.path = Path(folder) / FILE_NAME
        self.flush_interval = flush_interval
        self.last_flush = time.monotonic()
        """when pending completions were last written, on the monotonic clock"""
        self._pending: dict[bytes, tuple[str, str]] = {}
        self._writing: dict[bytes, tuple[str, str]] = {}
        self._uses = uses
        self._used: dict[str, IO[bytes]] = {}
        self._failure: StopRun | None = None
        self._lock = threading.Lock()  # of the two dictionaries and the reader
        self._flushing = threading.Lock()  # of the writer
        with contextlib.ExitStack() as undo, self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for another process that turns the same new file to WAL mode.
            with FileLock(self.path.parent / ".completions.lock", timeout=60, poll_interval=0.01):
                # Two connections, so that the event loop reads while another thread waits for the disk.
                self._writer, self._reader = (
                    undo.enter_context(contextlib.closing(connect(self.path))) for _ in range(2)
                )
                self._prepare()
            self._tables = ["completions"]
            if whole is not None:
                # Neither file may need the shared memory of WAL: the whole is read by several machines, and the next
                # attempt at a task may be made on another.
                self._writer.execute("PRAGMA journal_mode=TRUNCATE")
                uri = f"{(Path(whole) / FILE_NAME).absolute().as_uri()}?immutable=1"
                self._reader.execute("ATTACH ? AS whole", (uri,))
                self._tables.append("whole.completions")
            undo.pop_all()

    def get_many(self, keys: Sequence[bytes], step: str = "") -> list[str | None]:
        """The values, in the order of the keys; None where there is none. `step` is who wants them.

        Raises:
            StopRun: the file is damaged, more than in single rows.
        """
        marks = ",".join("?" * len(keys))
        found: dict[bytes, str] = {}
        try:
            with self._lock:
                for table in self._tables:
                    rows = self._reader.execute(f"SELECT key, crc, value FROM {table} WHERE key IN ({marks})", keys)
                    for key, crc, value in rows:
                        if fits(key, crc, value):
                            found[key] = value.decode("utf-8", "replace")
                    if len(found) == len(keys):
                        break
                for unwritten in (self._writing, self._pending):
                    for key in keys if unwritten else ():
                        if key in unwritten:
                            found[key] = unwritten[key][0]
                self._note(step, keys if len(found) == len(keys) else list(found))
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        return [found.get(key) for key in keys]

    def put(self, key: bytes, value: str, step: str = "") -> None:
        """Keeps a value that `step` has paid for: visible at once, on disk with the next `flush`.

        Raises:
            StopRun: the last flush failed. The value is kept all the same.
        """
        try:
            with self._lock:
                self._pending[key] = value, step
                self._note(step, [key])
        except OSError as error:
            raise self._unusable(error) from error
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
                self._failure = StopRun(f"cannot write the cache {self.path}: {error}; {remedy(error, self.path)}")
                raise self._failure from error
            finally:
                with self._lock:
                    self._writing = {}

    def close(self) -> None:
        """Flushes and closes. The WAL is folded into the one file."""
        try:
            self.flush()
        finally:
            with contextlib.ExitStack() as stack, self._explained():
                stack.callback(self._reader.close)
                stack.callback(self._writer.close)
                for file in self._used.values():
                    stack.callback(file.close)

    def _note(self, step: str, keys: Sequence[bytes]) -> None:
        if self._uses is None or not step or not keys:
            return
        if step not in self._used:
            self._used[step] = Path(f"{self._uses}.{step}.used").open("ab")  # noqa: SIM115
        self._used[step].write(b"".join(keys))

    def _prepare(self) -> None:
        if not any(self._writer.execute("SELECT 1 FROM sqlite_master")):
            return create(self._writer)
        if identity_of(self._writer) != (APPLICATION_ID, SCHEMA_VERSION):
            raise StopRun(f"{self.path} is no cache of version {SCHEMA_VERSION}: `autoif cache` says what it is")
        configure(self._writer)

    def _write(self) -> None:
        if self._writing:
            now = int(time.time())
            rows = (
                (key, now, step, checksum(key, raw := value.encode()), raw)
                for key, (value, step) in self._writing.items()
            )
            with transaction(self._writer):
                while some := list(itertools.islice(rows, _ROWS)):
                    # Many rows a statement: SQLite lets other threads run while it works on one, and only then.
                    put = _PUT.format(rows=",".join(["(?,?,?,?,?)"] * len(some)))
                    self._writer.execute(put, list(itertools.chain.from_iterable(some)))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StopRun:
        advice = remedy(error, self.path)
        if type(error) is sqlite3.DatabaseError:  # its subclasses tell of other things than damage
            checked_mark(self.path.parent).unlink(missing_ok=True)
            advice = "the same command mends it and continues"
        return StopRun(f"cannot use the cache {self.path}: {error}; {advice}")


# What whoever opens the file shares


def remedy(error: Exception, path: Path) -> str:
    """What helps where a cache cannot be used."""
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == ENOSPC
    with contextlib.suppress(OSError):  # SQLite has other words for it, too
        full = full or shutil.disk_usage(path.parent).free < 1 << 20
    return f"the disk is full: make room there. {CONTINUES}" if full else "choose another cache_dir"


def checksum(key: bytes, value: bytes) -> int:
    return crc32(value, crc32(key))


def fits(key: object, crc: object, value: object) -> bool:
    """Whether a row's checksum fits; of a damaged one, the columns may be of any type."""
    return type(key) is bytes and type(value) is bytes and crc32(value, crc32(key)) == crc


def checked_mark(folder: Path) -> Path:
    """The file that says in which state `folder`'s cache was last found, or left, in order."""
    return folder / ".completions.checked"


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file without transactions of its own. Names that a damaged file garbles can still be read."""
    # Our own locking suffices: `check_same_thread` would forbid closing from the thread that opened it.
    db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None, uri=True)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def create(db: sqlite3.Connection) -> None:
    """Makes the tables in an empty file."""
    db.execute(f"PRAGMA page_size={PAGE}")
    configure(db)
    with transaction(db):
        for table in TABLES.values():
            db.execute(table)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def configure(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA secure_delete=ON")  # what is deleted must not come back when a damaged file is mended


def identity_of(db: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and of which version."""
    return db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
