"""`autoif status`: what it tells of a run under way, of one that was killed, and of one that has ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Bench, FakeModel

from autoif_blocks.errors import RecipeError, StopRun
from autoif_blocks.status_command import Status, look

STEPS = "  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n"
NUMBERS = [{"number": i} for i in range(40)]


def status(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoif_blocks", "status", str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True)


def states(found: Status) -> list[str]:
    return [task.state for task in found.tasks]


def test_a_run_is_seen_from_its_beginning_to_its_end(bench: Bench, model: FakeModel) -> None:
    with pytest.raises(RecipeError, match="there is no run in"):
        look(bench.out)
    seen: list[Status] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            try:
                seen.append(look(bench.out))
            except RecipeError:
                assert not seen  # it has not begun

    model.latency = 0.4
    watcher = threading.Thread(target=watch)
    watcher.start()
    bench.run(STEPS, NUMBERS, "executor: {tasks: 3, workers: 1}\nflush_interval: 0.05")
    ended.set()
    watcher.join()
    under_way = [found for found in seen if found.tasks and not found.complete]
    assert ["running", "waiting", "waiting"] in map(states, under_way)
    assert ["finished", "finished", "running"] in map(states, under_way)
    asked = [found.steps[1]["requests"] for found in under_way]
    assert asked == sorted(asked)
    assert len(set(asked)) > 2
    assert {found.state for found in under_way} == {"running"}

    done = status(bench.out)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "completed")
    assert done.stdout.splitlines()[2].split() == ["2", "r", "40", "40", "0", "40", "0"]
    told = json.loads(status(bench.out, "--json").stdout)
    assert told["complete"]
    assert told["steps"][1] == {
        "name": "r", "number": 2, "in": 40, "out": 40, "requests": 40, "hits": 0, "dropped": 0,
    }  # fmt: skip


@pytest.mark.heavy
def test_a_task_without_news_and_one_that_failed_are_named(bench: Bench, model: FakeModel, tmp_path: Path) -> None:
    model.answer = lambda prompt: 401 if len(model.prompts) > 10 else "ok"
    with pytest.raises(StopRun):
        bench.run(STEPS, NUMBERS, "executor: {tasks: 3, workers: 2}")
    done = status(bench.out)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("failed: ")
    assert "stage 0: 3 tasks, 0 finished, " in done.stdout
    # As a kill leaves it: no word in run.json, and files that grow old.
    shutil.move(bench.out / "run.json", tmp_path)
    long_ago = time.time() - 3600
    os.utime(bench.out / ".work" / "stage-0" / "00001.status.json", (long_ago, long_ago))
    for path in bench.out.glob(".work/stage-0/*.failure.json"):
        path.unlink()
    found = look(bench.out)
    assert states(found)[1] == "silent"
    assert not found.complete
    assert "task     1 silent, last news 1 h 00 min ago" in status(bench.out).stdout


def test_where_no_run_is_the_exit_code_is_that_of_wrong_usage(tmp_path: Path) -> None:
    done = status(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no run in {tmp_path}" in done.stderr
