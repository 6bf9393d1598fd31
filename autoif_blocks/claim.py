"""Who is using a remote place, and who was the last to write there: told by a small object in it.

Storage has no locks, so this detects rather than prevents: whoever claims a place looks first, writes its own word, and
looks again; and looks again whenever it says that it is still there.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import StopRun
from .storage import Remote

FILE = ".autoif.json"
STALE = 300.0  # seconds without a word after which a run is taken for dead, at the least


class Claim:
    """A run's hold on a remote place."""

    def __init__(self, remote: Remote, folder: str, interval: float = 60.0) -> None:
        """`folder` identifies the folder of this machine that stands for the place; one run at a time may use it.
        `interval` is how often the claim will be renewed, in seconds."""
        self._remote = remote
        self._me: dict[str, Any] = {
            "token": uuid4().hex,
            "folder": folder,
            "host": socket.gethostname(),
            **_process(os.getpid()),
        }
        self._me["lasts"] = max(STALE, 3 * interval)
        self._writer: str | None = None
        self._folder = folder

    @property
    def ours(self) -> bool:
        """Whether the folder of this machine was the last to write there, so that it has all that is there."""
        return self._writer == self._folder

    def take(self) -> str:
        """Claims the place; returns what there is to say of the run that had it before, if it has not let it go.

        Raises:
            StopRun: another run is using it, or it cannot be reached or written.
        """
        found = self._remote.read(FILE)
        self._writer = found.get("writer")
        said = _outlived(self._remote.url, found.get("run"), self._folder)
        self._write()
        self.renew()
        return said

    def written(self) -> None:
        """Notes that the folder of this machine has all that is there, and what comes now comes from it."""
        self._writer = self._folder
        self._write()

    def renew(self) -> None:
        """Says that this run is still there.

        Raises:
            StopRun: another has taken the place over.
        """
        run = self._remote.read(FILE).get("run") or {}
        if run.get("token") != self._me["token"]:
            raise StopRun(f"a run on {run.get('host', 'another machine')} has taken {self._remote.url} over")
        self._write()

    def release(self) -> None:
        """Lets go of the place."""
        self._remote.write(FILE, json.dumps({"writer": self._writer, "run": None}).encode())

    def _write(self) -> None:
        run = {**self._me, "seen": time.time()}
        self._remote.write(FILE, json.dumps({"writer": self._writer, "run": run}, indent=2).encode())


def _outlived(url: str, run: dict[str, Any] | None, folder: str) -> str:
    """What to say of an earlier run that is not there any more.

    Raises:
        StopRun: it still is.
    """
    if run is None or run["folder"] == folder:  # the lock of the folder says that it is dead
        return ""
    age = time.time() - run["seen"]
    who = f"a run on {run['host']} (process {run['pid']})"
    here = {name: run.get(name) for name in ("machine", "started")}
    dead = here["machine"] == _machine() and _process(run["pid"]) != {**here, "pid": run["pid"]}
    if not dead and age < run["lasts"]:
        raise StopRun(
            f"{who} is using {url}, it was there {max(0.0, age):.0f} s ago: wait for it, or use another place; "
            f"if it is lost, the same command can take over in {run['lasts'] - age:.0f} s"
        )
    return f"{who} that was using {url} is {'gone' if dead else f'silent for {age:.0f} s'}: taken over"


def _machine() -> str:
    """What no two machines have in common, nor two containers of one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return ""


def _process(pid: int) -> dict[str, Any]:
    """What tells a process from all others; of one that has ended, its number alone."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = None
    return {"machine": _machine(), "pid": pid, "started": started}
