"""A cache for each task, where tasks run on several machines: SQLite's journal cannot be shared between hosts.

Each task writes a cache of its own, `<cache>/tasks/<task>/`, in the same form as the whole, and reads the whole beside
it, which nobody writes meanwhile. The run folds the parts into the whole at its end; those that a killed run has left,
when the next one begins. A task that is begun again finds its own part, and replays it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from .cache import FILE_NAME, configure, connect, create, remedy, transaction
from .errors import StopRun
from .salvage import mark, repair

_FOLDER = "tasks"


def part_of(folder: Path, task: str) -> Path:
    """The folder of one task's part of the cache in `folder`."""
    return folder / _FOLDER / task


def fold(folder: Path) -> Iterator[str]:
    """Puts all parts into the whole, and yields what there is to say of parts that were damaged. Nobody may be using
    either. A part goes only after what it held is in the whole.

    Raises:
        StopRun: the disk is full or cannot be written; parts that are left are folded the next time.
    """
    parts = sorted(path for path in (folder / _FOLDER).glob("*") if path.is_dir())
    if not parts:
        return
    try:
        with closing(connect(folder / FILE_NAME)) as db:
            configure(db) if any(db.execute("SELECT 1 FROM sqlite_master")) else create(db)
            for part in parts:
                if (said := repair(part)) is not None:
                    yield said
                db.execute("ATTACH ? AS part", (str(part / FILE_NAME),))
                with transaction(db):
                    db.execute(
                        "INSERT INTO main.completions (key, made, step, crc, value) SELECT key, made, step, crc, value "
                        "FROM part.completions WHERE 1 ORDER BY number ON CONFLICT (key) DO UPDATE "
                        "SET made = excluded.made, step = excluded.step, crc = excluded.crc, value = excluded.value"
                    )
                db.execute("DETACH part")
                for path in part.iterdir():
                    if ".damaged" in path.name:  # what could not be saved is kept beside the whole
                        path.replace(folder / f"{part.name}-{path.name}")
                shutil.rmtree(part)
        (folder / _FOLDER).rmdir()
        mark(folder)
    except (sqlite3.Error, OSError) as error:
        path = folder / FILE_NAME
        raise StopRun(f"cannot put the tasks' completions into {path}: {error}; {remedy(error, path)}") from error
