"""The cache: what was paid for stays, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autoif_blocks.cache import FILE_NAME, Cache, request_keys
from autoif_blocks.errors import StopRun

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hé \ud800"}], "temperature": 1.0, "base_seed": 5}


def key(number: int) -> bytes:
    return b"%016d" % number


# Keys


def test_a_key_does_not_depend_on_the_order_of_options() -> None:
    backwards = dict(reversed(REQUEST.items()))
    assert request_keys(REQUEST, 0, 3) == request_keys(backwards, 0, 3)


def test_a_key_depends_on_all_that_shapes_a_sample() -> None:
    variants = [
        REQUEST,
        {**REQUEST, "model": "other"},
        {**REQUEST, "messages": [{"role": "system", "content": "hé \ud800"}]},
        {**REQUEST, "messages": [{"role": "user", "content": "he"}]},
        {**REQUEST, "temperature": 0.5},
        {**REQUEST, "base_seed": 6},
        {**REQUEST, "stop": ["x"]},
        {**REQUEST, "stop": "x"},
    ]
    keys = [one for request in variants for one in request_keys(request, 0, 12)]
    assert len(set(keys)) == len(variants) * 12
    assert {len(one) for one in keys} == {16}


def test_a_sample_s_key_is_the_same_however_many_are_asked_for() -> None:
    assert request_keys(REQUEST, 0, 8)[5:7] == request_keys(REQUEST, 5, 2)


def test_keys_stay_as_they_are() -> None:
    """Another key for the same request would make every user pay again."""
    keys = [key.hex() for key in request_keys({"model": "m", "messages": []}, 0, 2)]
    assert keys == ["e287a18c6102f6bfc95e80108255cbec", "40517c2abebb74e006a6af952de496b8"]


# Values


def test_values_are_seen_before_and_after_they_are_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(key(1), "one")
    cache.put(key(2), "")
    wanted = [key(3), key(2), key(1), key(1)]
    assert cache.get_many(wanted) == [None, "", "one", "one"]
    cache.flush()
    assert cache.get_many(wanted) == [None, "", "one", "one"]
    cache.put(key(1), "newer")
    assert cache.get_many([key(1)]) == ["newer"]
    cache.close()
    with closing(Cache(tmp_path)) as cache:
        assert cache.get_many(wanted) == [None, "", "newer", "newer"]
    assert [path.name for path in tmp_path.iterdir() if "-" in path.name] == []  # the WAL is folded in


def test_many_keys_are_looked_up_at_once(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        for number in range(2_000):
            cache.put(key(number), str(number))
        assert cache.get_many([key(number) for number in range(2_000)]) == [str(number) for number in range(2_000)]
        assert cache.get_many([]) == []


def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """Another process that holds the write lock stops `flush`, which has a thread of its own, and nothing else."""
    with closing(Cache(tmp_path)) as cache, closing(sqlite3.connect(cache.path, isolation_level=None)) as other:
        cache.put(key(1), "one")
        other.execute("BEGIN IMMEDIATE")
        flushing = threading.Thread(target=cache.flush)
        flushing.start()
        time.sleep(0.1)
        began = time.monotonic()
        cache.put(key(2), "two")
        assert cache.get_many([key(1), key(2)]) == ["one", "two"]
        assert time.monotonic() - began < 0.1
        assert flushing.is_alive()
        other.execute("COMMIT")
        flushing.join(10)
        assert cache.get_many([key(1), key(2)]) == ["one", "two"]


def test_threads_may_share_it(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        wrong: list[int] = []

        def work(begin: int) -> None:
            for number in range(begin, begin + 500):
                cache.put(key(number), str(number))
                if cache.get_many([key(number), key(begin)]) != [str(number), str(begin)]:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(i * 1_000,)) for i in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            cache.flush()
        assert wrong == []


# Processes

WRITER = """
import sys, time
from autoif_blocks.cache import Cache
folder, begin, count, pause = sys.argv[1], *map(float, sys.argv[2:])
cache = Cache(folder, flush_interval=0.05)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(begin), int(begin + count)):
    cache.put(b"%016d" % number, "x" * 500 + str(number))
    if time.monotonic() - cache.last_flush > cache.flush_interval:
        cache.flush()
        print(number, flush=True)
    time.sleep(pause)
cache.close()
print("done", flush=True)
"""


def writer(folder: Path, begin: int, count: int, pause: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(folder), str(begin), str(count), str(pause)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    said, _ = process.communicate(timeout=30)
    return said.split()


def test_a_kill_costs_no_more_than_what_was_not_flushed(tmp_path: Path) -> None:
    begin = 0
    for moment in random.Random(1).choices(range(20, 250), k=6):
        process = writer(tmp_path, begin, 100_000, 0.0002)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"  # a busy machine takes long to start it
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(moment / 1_000)
        process.send_signal(signal.SIGKILL)
        said = finish(process)
        last = int(said[-1]) if said[-1:] not in ([], ["ready"]) else begin - 1
        with closing(Cache(tmp_path)) as cache:
            wanted = list(range(last + 1))
            for at in range(0, len(wanted), 5_000):
                part = wanted[at : at + 5_000]
                assert cache.get_many([key(n) for n in part]) == ["x" * 500 + str(n) for n in part]
            (check,) = cache._reader.execute("PRAGMA integrity_check").fetchone()
            assert check == "ok"
        begin = last + 1
    assert begin > 100


def test_processes_may_open_and_write_it_at_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path, i * 10_000, 400, 0.0) for i in range(5)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert [finish(process)[-1:] for process in processes] == [["done"]] * 5
    with closing(Cache(tmp_path)) as cache:
        for i in range(5):
            numbers = range(i * 10_000, i * 10_000 + 400)
            assert cache.get_many([key(n) for n in numbers]) == ["x" * 500 + str(n) for n in numbers]


@pytest.mark.parametrize("round_", range(5))
def test_a_new_cache_may_be_made_by_all_tasks_at_the_same_moment(tmp_path: Path, round_: int) -> None:
    gate = threading.Barrier(8)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        gate.wait()
        try:
            with closing(Cache(tmp_path)) as cache:
                cache.put(key(number), str(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


# Trouble


def test_a_tail_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 100_000, 0.0005)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(0.4)
    process.kill()
    finish(process)
    wal = tmp_path / f"{FILE_NAME}-wal"
    os.truncate(wal, wal.stat().st_size - 5_000)
    with closing(Cache(tmp_path)) as cache:
        assert cache.get_many([key(0)]) == ["x" * 500 + "0"]


@pytest.mark.parametrize("folder", ["/proc/cache", "file/cache"])
def test_a_folder_that_cannot_be_written_stops_the_run(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StopRun, match="cannot use the cache"):
        Cache(tmp_path / folder)


FULL = """
import resource, sys
from autoif_blocks.cache import Cache
from autoif_blocks.errors import StopRun
cache = Cache(sys.argv[1])
cache.put(b"k" * 16, "kept")
cache.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))  # as a full disk does: writes fail
for number in range(100):
    cache.put(b"%016d" % number, "x" * 10_000)
try:
    cache.flush()
except StopRun as error:
    print(error)
try:
    cache.put(b"late" * 4, "late")
except StopRun as error:
    print("told", cache.get_many([b"late" * 4, b"%016d" % 5])[1] == "x" * 10_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
cache.close()
print("closed")
"""


def test_a_full_disk_is_told_and_costs_nothing_that_is_still_in_memory(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.stderr == ""
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"cannot write the cache {tmp_path}")
    assert rest == ["told True", "closed"]
    with closing(Cache(tmp_path)) as cache:
        assert cache.get_many([b"k" * 16, b"%016d" % 99, b"late" * 4]) == ["kept", "x" * 10_000, "late"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small disk here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_committed(small_disk: Path) -> None:
    cache = Cache(small_disk)
    kept = 0
    with pytest.raises(StopRun, match="full"):  # noqa: PT012
        for number in range(1_000):
            cache.put(key(number), "x" * 2_000)
            cache.flush()
            kept = number
    with pytest.raises(StopRun, match="cannot write the cache"):
        cache.close()
    with closing(sqlite3.connect(f"file:{small_disk / FILE_NAME}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM completions").fetchone()[0] >= kept + 1


def test_replay_is_fast(tmp_path: Path) -> None:
    """Far below what is measured, so that a busy machine passes; `benchmarks/bench_client.py` has the number."""
    with closing(Cache(tmp_path)) as cache:
        for number in range(20_000):
            cache.put(key(number), json.dumps(["x" * 400, "stop"]))
        cache.flush()
        began = time.monotonic()
        for at in range(0, 20_000, 8):
            assert None not in cache.get_many([key(number) for number in range(at, at + 8)])
        assert 20_000 / (time.monotonic() - began) > 20_000
