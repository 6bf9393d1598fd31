"""Runs and servers in processes of their own, as a shell starts them, and what they have left behind."""

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
from conftest import AUTOIF, SMALL, rows

TASKS = {"one": [], "several": ["--set", "executor.tasks=3", "--set", "executor.workers=3"]}


@contextlib.contextmanager
def served(*faults: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The simulated teacher, as slow or faulty as asked for: its process and its address."""
    command = [sys.executable, "-m", "autoif_blocks", "teacher", "--port", "0", *faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline().strip()
        finally:
            server.terminate()


@contextlib.contextmanager
def teacher(*faults: str) -> Iterator[str]:
    """The address of a simulated teacher."""
    with served(*faults) as (_, url):
        yield url


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *SMALL, "--output-dir", str(out), *more]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a shell starts it."""
    return subprocess.Popen(command(out, *more), stderr=subprocess.PIPE, text=True, start_new_session=True)


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


def kill(run: subprocess.Popen[str], whole_group: bool) -> float:
    """Kills a run, or all processes of it, and waits until none is left; gives the moment of the kill."""
    moment = time.monotonic()
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
    run.communicate()
    while members(run.pid):
        assert time.monotonic() - moment < 10, members(run.pid)
        time.sleep(0.05)
    return moment


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own of that size; skips the test where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("this machine mounts nothing, or only for root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Root ignores permissions, but not without these capabilities.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
