"""Runs that end early: by Ctrl-C, by SIGTERM, by a budget, by the death of a worker. All of them continue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, rows

AUTOIF = ROOT / "autoif.yaml"
SMALL = ["--set", "steps.augment_instructions.self_instruct.n=4", "--limit", "12"]
TASKS = {"one": [], "several": ["--set", "executor.tasks=3", "--set", "executor.workers=3"]}


@contextlib.contextmanager
def teacher(*faults: str) -> Iterator[str]:
    """The simulated teacher, as slow or faulty as asked for."""
    command = [sys.executable, "-m", "autoif_blocks", "teacher", "--port", "0", *faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *SMALL, "--output-dir", str(out), *more]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a shell starts it."""
    return subprocess.Popen(command(out, *more), stderr=subprocess.PIPE, text=True, start_new_session=True)


def tree(folder: Path) -> dict[str, bytes]:
    skipped = ("cache", "logs", ".lock", "run.json")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in skipped
    }


def wait_for_completions(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = 0
        for path in out.glob(".work/stage-*/*.status.json"):
            with contextlib.suppress(ValueError, OSError):
                found += sum(meter[3]["completions"] for meter in json.loads(path.read_text())["meters"])
        if found >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the run made no progress")


def run_json(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def members(session: int) -> list[str]:
    """The command lines of the processes whose session that is, or whose parent in it has gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                found.append((path / "cmdline").read_text().replace("\0", " "))
    return [line for line in found if line]  # one without is dead and waits for whoever reaps orphans here


def counts_add_up(out: Path) -> None:
    """In + created = out + dropped + unfinished, with what the files hold."""
    came = 0
    for step in run_json(out)["steps"]:
        dropped = sum(step["dropped"].values())
        assert step["in"] == came
        assert step["in"] + step["created"] == step["out"] + dropped + step.get("unfinished", 0)
        assert step.get("unfinished", 0) >= 0
        file = out / step["file"]
        assert (len(rows(file)) if file.exists() else 0) == step["out"]
        file = out / "dropped" / step["file"]
        assert (len(rows(file)) if file.exists() else 0) == dropped
        came = step["out"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nobody stops."""
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(out, "--quiet"), check=True)
    return tree(out)


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "group SIGINT", "group SIGTERM"])
def test_a_signal_stops_a_run_gently(how: str, tasks: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    number = signal.Signals[how.split()[-1]]
    with teacher("--latency", "0.2") as url:
        run = start(tmp_path, "--base-url", url, *TASKS[tasks])
        wait_for_completions(tmp_path, 60)
        (os.killpg if how.startswith("group") else os.kill)(run.pid, number)
        began = time.monotonic()
        _, said = run.communicate(timeout=30)
        assert run.returncode == 130
        assert time.monotonic() - began < 8
        assert "requests in flight are waited for, at most 10 s" in said
        assert "the same command continues" in said
        assert "Traceback" not in said
        assert members(run.pid) == []
        stopped = run_json(tmp_path)
        assert stopped["state"] == "stopped"
        assert sum(step.get("unfinished", 0) for step in stopped["steps"]) > 0
        counts_add_up(tmp_path)
        assert rows(tmp_path / "augment_instructions.jsonl")
        done = subprocess.run(command(tmp_path, "--base-url", url, *TASKS[tasks]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == whole
