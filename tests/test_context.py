"""What the blocks of a task share: opened once, closed whole, and nothing that was reported is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autoif_blocks.cache import Cache
from autoif_blocks.context import RunContext, RunSettings, event_loop
from autoif_blocks.errors import AutoIFError, StopRun
from autoif_blocks.models import ModelConfig

KEY = b"k" * 16


@pytest.fixture
def context(tmp_path: Path) -> Iterator[RunContext]:
    models = {"teacher": ModelConfig("http://127.0.0.1:1/v1", "m")}
    opened = RunContext(RunSettings(str(tmp_path / "work"), str(tmp_path / "cache"), models=models, flush_interval=0.1))
    opened.open(3)
    yield opened
    opened.close(True)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("autoif-")] == []


def test_rows_reach_their_part_of_the_file(context: RunContext, tmp_path: Path) -> None:
    context.write("a/b.jsonl", {"id": "x", "n": 1})
    context.write("a/b.jsonl", {"id": "y"})
    context.touch("empty.jsonl")
    context.close(True)
    part = tmp_path / "work" / "00003"
    assert (part / "a" / "b.jsonl").read_text() == '{"id":"x","n":1}\n{"id":"y"}\n'
    assert (part / "empty.jsonl").read_bytes() == b""


@pytest.mark.parametrize("finished", [True, False])
def test_the_counts_say_whether_the_task_ended_whole(context: RunContext, tmp_path: Path, finished: bool) -> None:
    context.meter("step", 0, "Block").taken = 7
    context.meter("", 0, "Hidden").taken = 1
    context.close(finished)
    status = json.loads((tmp_path / "work" / "00003.status.json").read_text())
    assert status["finished"] is finished
    assert [row[:3] for row in status["meters"]] == [["step", 0, "Block"]]
    assert status["meters"][0][3]["in"] == 7


def test_completions_are_written_behind(context: RunContext, tmp_path: Path) -> None:
    assert context._opened is not None
    assert context._opened.cache is not None
    context._opened.cache.put(KEY, "paid for")
    deadline = time.monotonic() + 5
    with closing(Cache(tmp_path / "cache")) as another:
        while another.get_many([KEY]) == [None]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_what_the_disk_refuses_stops_the_run(context: RunContext) -> None:
    context.touch("a/b.jsonl")
    with pytest.raises(StopRun, match="Is a directory"):
        context.write("a", {"id": "x"})  # a folder


def test_an_output_that_cannot_be_written_out_is_told_when_it_closes(tmp_path: Path) -> None:
    context = RunContext(RunSettings(str(tmp_path)))
    context.open(0)
    part = tmp_path / "00000" / "full.jsonl"
    part.symlink_to("/dev/full")
    context.write("full.jsonl", {"id": "x"})
    context.write("other.jsonl", {"id": "y"})
    with pytest.raises(StopRun, match="No space left"):
        context.close(True)
    assert (tmp_path / "00000" / "other.jsonl").read_text() == '{"id":"y"}\n'
    assert "autoif-loop" not in [thread.name for thread in threading.enumerate()]


def test_steps_that_name_a_model_share_its_client(context: RunContext) -> None:
    assert context.client("teacher") is context.client("teacher")


def test_a_copy_is_closed_and_a_closed_one_says_so(context: RunContext) -> None:
    copy = pickle.loads(pickle.dumps(context))  # noqa: S301
    assert copy.settings == context.settings
    with pytest.raises(AutoIFError, match="works within a run"):
        copy.loop  # noqa: B018
    copy.close(True)
    context.close(True)
    with pytest.raises(AutoIFError, match="works within a run"):
        context.write("a", {"id": "x"})


def test_uvloop_is_used_where_it_is_installed_and_not_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not there
    loop = event_loop()
    assert type(loop).__module__.startswith("asyncio")
    loop.close()
    made = asyncio.new_event_loop()
    monkeypatch.setitem(sys.modules, "uvloop", types.SimpleNamespace(new_event_loop=lambda: made))
    opened = RunContext(RunSettings(str(tmp_path)))
    opened.open(0)
    assert opened.loop is made
    opened.close(True)


def test_the_collector_is_as_it_was_when_the_last_context_closes(tmp_path: Path) -> None:
    usual = gc.get_threshold()
    first, second = (RunContext(RunSettings(str(tmp_path / name))) for name in "ab")
    first.open(0)
    second.open(0)
    first.close(True)
    assert gc.get_threshold()[0] >= 10_000
    second.close(True)
    assert gc.get_threshold() == usual


def test_many_completions_are_not_kept_in_memory_until_the_interval_is_over(tmp_path: Path) -> None:
    context = RunContext(RunSettings(str(tmp_path / "work"), cache_dir=str(tmp_path / "cache"), flush_interval=1000))
    context.open(0)
    assert context._opened is not None
    assert context._opened.cache is not None
    for number in range(1_000):
        context._opened.cache.put(b"%016d" % number, "x")
    deadline = time.monotonic() + 5
    with closing(Cache(tmp_path / "cache")) as another:
        while another.get_many([b"%016d" % 999]) == [None]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    context.close(True)
