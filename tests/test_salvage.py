"""Damaged caches: whatever row can still be read is saved, the run goes on, and the user hears what happened."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoif_blocks.cache import FILE_NAME, Cache, checked_mark
from autoif_blocks.errors import StopRun
from autoif_blocks.salvage import repair

ROWS = 100
few = settings(
    max_examples=int(os.environ.get("EXAMPLES", 20)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Files(dict[str, bytes]):
    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"  # hypothesis shows it


def key(number: int) -> bytes:
    return random.Random(number).randbytes(16)


def value(number: int) -> str:
    """Most stand on one page, every tenth goes on elsewhere."""
    rng = random.Random(-number)
    return json.dumps([rng.randbytes(rng.randrange(5_000, 15_000) if number % 10 == 0 else 150).hex() + " é", "stop"])


def files_of(folder: Path) -> Files:
    paths = [path for path in folder.glob(f"{FILE_NAME}*") if not path.name.endswith("-shm")]
    return Files((path.name, path.read_bytes()) for path in paths)


@contextmanager
def folder_with(files: dict[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def fill(cache: Cache, numbers: range) -> None:
    for number in numbers:
        cache.put(key(number), value(number), "a_step")
        if number % 25 == 24:
            cache.flush()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A cache that was closed."""
    folder = tmp_path_factory.mktemp("whole")
    with closing(Cache(folder)) as cache:
        fill(cache, range(ROWS))
    return files_of(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A cache whose run was killed: half of it is still in the journal."""
    folder = tmp_path_factory.mktemp("killed")
    with closing(Cache(folder)) as cache:
        fill(cache, range(ROWS // 2))
    with closing(Cache(folder)) as cache:
        fill(cache, range(ROWS // 2, ROWS))
        cache.flush()
        return files_of(folder)


def readable(files: dict[str, bytes]) -> set[int]:
    """The short rows that stand somewhere whole, as SQLite's file format has them; their time may be anything."""
    everything = b"\0".join(files.values())
    found = set()
    for number in (n for n in range(ROWS) if n % 10):
        raw = value(number).encode()
        check = crc32(raw, crc32(key(number)))
        kind, size = next((kind, size) for kind, size in enumerate((1, 2, 3, 4, 6), 1) if check < 1 << (8 * size - 1))
        length = 12 + 2 * len(raw)
        head = bytes([8, 0, 0x2C, 4, 13 + 2 * len("a_step"), kind, 0x80 | length >> 7, length & 0x7F])
        tail = b"a_step" + check.to_bytes(size, "big") + raw
        if re.search(re.escape(head + key(number)) + b"...." + re.escape(tail), everything, re.DOTALL):
            found.add(number)
    return found


def mended(folder: Path) -> tuple[str | None, set[int]]:
    """What `repair` says, and the rows that a run then finds; none of them is wrong."""
    said = repair(folder)
    with closing(Cache(folder)) as cache:
        values = cache.get_many([key(number) for number in range(ROWS)])
        assert cache._reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = {number for number, got in enumerate(values) if got is not None}
    assert all(values[number] == value(number) for number in found)
    if said is not None:
        assert "\n" not in said
        assert list(folder.glob(f"{FILE_NAME}.damaged-*")) or "was empty" in said
    assert repair(folder) is None  # once is enough
    return said, found


def test_a_cache_that_is_in_order_is_left_alone(whole: Files, killed: Files) -> None:
    for files in (whole, killed):
        assert len(readable(files)) == ROWS * 9 // 10
        with folder_with(files) as folder:
            assert mended(folder) == (None, set(range(ROWS)))
    with folder_with({}) as folder:
        assert mended(folder) == (None, set())


@few
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_costs_one_row_at_most(whole: Files, place: float, bits: int) -> None:
    data = bytearray(whole[FILE_NAME])
    data[int(place * len(data))] ^= bits
    with folder_with({FILE_NAME: bytes(data)}) as folder:
        said, found = mended(folder)
        assert len(found) >= ROWS - 1
        assert len(found) == ROWS or (said is not None and f"{len(found)} completions saved, at least 1 lost" in said)


def test_the_heads_of_the_file_and_of_its_pages_may_be_anything(whole: Files) -> None:
    """They say whose file it is, of which version, how its pages are laid out: none of it is needed."""
    data = whole[FILE_NAME]
    rng = random.Random(1)
    trees = [at for at in range(4096, len(data), 4096) if data[at] in (2, 5, 10, 13)]  # others are the rest of rows
    for at in [*range(100), *trees[::5], *(at + 4 for at in trees[1::5]), *(at + 9 for at in trees[2::5])]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        with folder_with({FILE_NAME: bytes(damaged)}) as folder:
            assert len(mended(folder)[1]) == ROWS, at


@few
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([1, 30, 4096, 40_000])), max_size=8),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_overwritten_the_other_rows_survive(
    whole: Files, places: list[tuple[float, int]], seed: int
) -> None:
    data = bytearray(whole[FILE_NAME])
    for place, length in places:
        at = int(place * len(data))
        length = min(length, len(data) - at)
        data[at : at + length] = random.Random(seed).randbytes(length)
    with folder_with({FILE_NAME: bytes(data)}) as folder:
        assert readable({FILE_NAME: bytes(data)}) <= mended(folder)[1]


@few
@given(place=st.floats(0, 1))
def test_of_a_file_that_is_cut_off_what_is_left_survives(whole: Files, place: float) -> None:
    data = whole[FILE_NAME][: int(place * len(whole[FILE_NAME]))]
    with folder_with({FILE_NAME: data}) as folder:
        said, found = mended(folder)
        assert readable({FILE_NAME: data}) <= found
        assert said is not None or len(found) == ROWS


@few
@given(
    which=st.sampled_from([FILE_NAME, f"{FILE_NAME}-wal"]),
    place=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(["cut", "flip", "blot"]),
)
def test_a_damaged_journal_costs_no_readable_row(killed: Files, which: str, place: float, how: str) -> None:
    files = Files(killed)
    data = bytearray(files[which])
    at = int(place * len(data))
    if how == "cut":
        del data[at:]
    else:
        end = at + (1 if how == "flip" else 5_000)
        data[at:end] = bytes(byte ^ 0x55 for byte in data[at:end])
    files[which] = bytes(data)
    with folder_with(files) as folder:
        said, found = mended(folder)
        assert readable(files) <= found
        assert len(found) == ROWS or said is not None or not data
        if how == "flip":
            assert len(found) >= ROWS - 1


def test_the_head_of_the_journal_may_be_anything(killed: Files) -> None:
    for at in range(32 + 24):
        data = bytearray(killed[f"{FILE_NAME}-wal"])
        data[at] ^= 1 << at % 8
        with folder_with({**killed, f"{FILE_NAME}-wal": bytes(data)}) as folder:
            said, found = mended(folder)
            assert said is not None
            assert "The last write to the cache" in said
            assert "none that is known of lost" in said
            assert len(found) == ROWS, at


def test_what_is_lost_is_counted(whole: Files) -> None:
    data = bytearray(whole[FILE_NAME])
    victims = [number for number in range(ROWS) if number % 10 == 3]
    for number in victims:
        at = data.index(value(number).encode())
        data[at + 100] ^= 1
    with folder_with({FILE_NAME: bytes(data)}) as folder:
        said, found = mended(folder)
        assert found == set(range(ROWS)) - set(victims)
        assert said is not None
        assert re.fullmatch(
            rf"The cache {re.escape(str(folder))}/completions\.sqlite was damaged \(a checksum does not fit\): "
            r"90 completions saved, at least 10 lost; the file as it was is completions\.sqlite\.damaged-[\d-]+",
            said,
        )
        (kept,) = folder.glob("*.damaged-*")
        assert kept.read_bytes() == data


# Files that are no cache, or not ours to touch


def test_what_is_no_database_is_kept_aside(tmp_path: Path) -> None:
    for content in (b"x", b"this is no cache\n" * 1_000, os.urandom(20_000), b"SQLite format 3\0"):
        (tmp_path / FILE_NAME).write_bytes(content)
        said, found = mended(tmp_path)
        assert said is not None
        assert "0 completions saved" in said
        assert found == set()
        assert content in [path.read_bytes() for path in tmp_path.glob("*.damaged-*")]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 4  # none replaced another


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    said, _ = mended(tmp_path)
    assert said is not None
    assert "was empty" in said


@pytest.mark.parametrize("harm", [b"", None])
def test_a_journal_alone_is_read(killed: Files, harm: bytes | None) -> None:
    """SQLite would delete the journal of a file that is empty or not there."""
    files = {f"{FILE_NAME}-wal": killed[f"{FILE_NAME}-wal"], **({FILE_NAME: harm} if harm is not None else {})}
    with folder_with(files) as folder:
        assert mended(folder)[1] >= readable(files) >= {number for number in range(ROWS // 2, ROWS) if number % 10}


def newer(path: Path) -> None:
    with closing(Cache(path.parent)):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA user_version=3")
        db.execute("ALTER TABLE completions ADD COLUMN model TEXT")


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE completions (prompt TEXT)")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (newer, "is a cache of version 3, this is 2"),
        (of_another_program, "another program"),
        (a_folder, "unable to open"),
    ],
)
def test_what_is_not_ours_to_mend_is_left_as_it_is(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for use in (repair, Cache):
        with pytest.raises(StopRun, match=r"completions\.sqlite") as caught:
            use(tmp_path)
        assert use is Cache or said in str(caught.value)
        assert use is Cache or "another cache_dir" in str(caught.value)
    assert before is None or path.read_bytes() == before
    assert not list(tmp_path.glob("*.damaged-*"))


def of_version_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=1")
        db.execute("CREATE TABLE completions (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")
        db.executemany("INSERT INTO completions VALUES (?, ?)", [(key(n), value(n)) for n in range(ROWS)])
        db.commit()


def test_a_cache_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    of_version_1(tmp_path / FILE_NAME)
    said = repair(tmp_path)
    assert said is not None
    assert said.endswith("was of version 1: its 100 completions are now in one of version 2")
    assert mended(tmp_path) == (None, set(range(ROWS)))
    assert not list(tmp_path.glob("*.damaged-*"))


def test_of_a_damaged_cache_of_version_1_what_sqlite_can_read_is_saved(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    of_version_1(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    said, found = mended(tmp_path)
    assert said is not None
    assert f"{len(found)} completions saved" in said
    assert len(found) > 10


# Repairs that end early, and none where none is needed


def test_a_repair_that_was_killed_is_finished(whole: Files) -> None:
    """Killed after the new file is complete, between the renames that put it in place."""
    data = bytearray(whole[FILE_NAME])
    data[0] ^= 1
    for gone in ((), (FILE_NAME,)):
        with folder_with({FILE_NAME: bytes(data)}) as folder:
            shutil.copyfile(folder / FILE_NAME, folder / "kept")
            assert mended(folder)[1] == set(range(ROWS))
            (folder / FILE_NAME).replace(folder / ".completions.mended")
            (folder / "kept").replace(folder / FILE_NAME)
            for name in gone:
                (folder / name).unlink()
            assert repair(folder) is None
            with closing(Cache(folder)) as cache:
                assert cache.get_many([key(number) for number in range(ROWS)]) == [value(n) for n in range(ROWS)]


def test_a_file_that_has_not_changed_is_not_looked_through_again(whole: Files) -> None:
    """Nor are its rows believed: a bit that flips meanwhile costs the row when it is read."""
    with folder_with(whole) as folder:
        path = folder / FILE_NAME
        assert repair(folder) is None
        was = path.stat()
        data = bytearray(path.read_bytes())
        data[data.index(value(1).encode()) + 100] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert repair(folder) is None
        with closing(Cache(folder)) as cache:
            assert cache.get_many([key(1), key(2)]) == [None, value(2)]
            cache.put(key(1), value(1))
        assert mended(folder) == (None, set(range(ROWS)))


def test_damage_that_shows_during_a_run_is_mended_by_the_next(whole: Files) -> None:
    with folder_with(whole) as folder:
        path = folder / FILE_NAME
        assert repair(folder) is None
        was = path.stat()
        path.write_bytes(path.read_bytes()[:4096] + os.urandom(len(whole[FILE_NAME]) - 4096))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        with closing(Cache(folder)) as cache, pytest.raises(StopRun, match="the same command mends it"):
            cache.get_many([key(number) for number in range(ROWS)])
        assert not checked_mark(folder).exists()
        said, _ = mended(folder)
        assert said is not None


def test_a_full_disk_leaves_the_damaged_file_as_it_is(whole: Files) -> None:
    """The limit on a file's size stands for the disk's."""
    script = (
        "import resource, sys; from pathlib import Path; from autoif_blocks.salvage import repair\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "repair(Path(sys.argv[1]))\n"
    )
    data = bytearray(whole[FILE_NAME])
    data[20] ^= 1
    with folder_with({FILE_NAME: bytes(data)}) as folder:
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False, timeout=60
        )
        assert "StopRun: cannot mend the cache" in done.stderr
        assert (folder / FILE_NAME).read_bytes() == data
        assert mended(folder)[1] == set(range(ROWS))
