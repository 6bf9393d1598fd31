"""Starts a server when it is first wanted, watches it, starts it again when it ends, and ends it with the run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from .state import LOOK, ServerState, wish

_RESTARTS, _WITHIN = 3, 3600.0  # so many in so many seconds, and what has ended then is given up
_PAUSES = (1.0, 5.0, 20.0)  # seconds before each of them
_GENTLY = 20.0  # seconds for a host to end: its own 15, and a little
_LAST_LINES = 5

Note = Callable[[str], None]


@dataclass(frozen=True)
class ServerSpec:
    """A server to start; picklable."""

    name: str
    """the recipe's name for the model, or for one of those that share it"""
    kind: str
    """what the recipe says: vllm, sglang, or a class"""
    module: str
    cls: str
    folder: str
    """where the module lies, if it is a file beside the recipe"""
    start_timeout: float
    config: dict[str, Any] = field(default_factory=dict)
    """for datatrove's InferenceConfig"""

    def file(self, suffix: str) -> str:
        """A file's name for what concerns this server."""
        return f"{quote(self.name, safe='')}.{suffix}"


class Supervisor:
    """Takes care of one server, from a thread of its own."""

    def __init__(self, spec: ServerSpec, state: Path, log: Path, note: Note, rank: int = 0) -> None:
        """`state` is the file that tells clients of it, `log` gets what it says, `note` is told what a person should
        know."""
        self.spec = spec
        self._state = state
        self._log = log
        self._note = note
        self._rank = rank
        state.parent.mkdir(parents=True, exist_ok=True)
        for path in (state, wish(state)):  # of an earlier attempt at the same task
            path.unlink(missing_ok=True)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="autoif-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tells the server to end."""
        self._closing.set()

    def join(self) -> None:
        """Waits until it has, after `stop`: some 20 seconds at most, and nothing of it is left."""
        self._thread.join()

    def _watch(self) -> None:
        try:
            failure = self._lives()
        except Exception as error:  # a full disk, no process to be had
            failure = f"model '{self.spec.name}': its server cannot be run: {type(error).__name__}: {error}"
        if failure:
            with contextlib.suppress(OSError):
                ServerState(failure=failure).write(self._state)

    def _lives(self) -> str:
        """Starts it until it is told to stop; gives why it is not started any more otherwise."""
        while not wish(self._state).exists():
            if self._closing.wait(LOOK):
                return ""
        title = f"model '{self.spec.name}'"
        self._note(f"starting {self.spec.kind} for {title}; what it says is in {self._log}")
        ends: deque[float] = deque()
        for start in itertools.count(1):
            ended = self._live(start)
            if ended is None:
                return ""
            ready, how = ended
            now = time.monotonic()
            ends.append(now)
            while ends[0] < now - _WITHIN:
                ends.popleft()
            if start == 1 and not ready:  # it has never worked: to try again would only take longer
                return (
                    f"{title}: the server that serve: {self.spec.kind} starts did not come up: {how}. {self._words()}"
                )
            if len(ends) > _RESTARTS:
                return (
                    f"{title}: its server has ended {len(ends)} times within an hour, at last: {how}. {self._words()}"
                )
            pause = _PAUSES[len(ends) - 1]
            self._note(f"{title}: its server is gone: {how}; it is started again in {pause:.0f} s")
            if self._closing.wait(pause):
                return ""
        raise AssertionError

    def _live(self, start: int) -> tuple[bool, str] | None:
        """One life of the server: whether it has answered, and how it ended; None if it was told to."""
        process = self._launch(start)
        assert process.stdout is not None
        lines, ready, gone, began = _Lines(process.stdout), False, False, time.monotonic()
        try:
            ServerState(start).write(self._state)
            while not self._closing.is_set():
                told = lines.next(LOOK)
                took = time.monotonic() - began
                if told and "url" in told:
                    ready = True
                    ServerState(start, told["url"]).write(self._state)
                    self._note(f"model '{self.spec.name}' is ready after {took:.0f} s at {told['url']}")
                elif told:
                    gone = True
                    return ready, told["gone"]
                elif not ready and took > self.spec.start_timeout:
                    return ready, f"it did not answer within {self.spec.start_timeout:g} s (start_timeout)"
            return None
        finally:
            ServerState(start).write(self._state)
            _end(process, gone)

    def _launch(self, start: int) -> subprocess.Popen[bytes]:
        told = {**vars(self.spec), "rank": self._rank}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # `vllm` is found there
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb" if start == 1 else "ab") as log:
            return subprocess.Popen(
                # -P: no file in the user's folder may stand in for a module.
                [sys.executable, "-P", "-m", "autoif_blocks.serving.host", json.dumps(told)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PATH": path},
                start_new_session=True,
            )  # fmt: skip

    def _words(self) -> str:
        """The last lines of the log."""
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
            lines = [line.rstrip()[:300] for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return f"It has said nothing ({self._log} is empty)"
        return f"Its log, {self._log}, ends with:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])


class _Lines:
    """What a host says, line by line."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        self._poll = select.poll()  # select() takes no number above 1023, and a task has many connections
        self._poll.register(self._pipe, select.POLLIN)
        self._rest = b""

    def next(self, patience: float) -> dict[str, str] | None:
        """The next line, if one comes within so many seconds."""
        if b"\n" not in self._rest:
            if not self._poll.poll(patience * 1000):
                return None
            more = os.read(self._pipe, 65536)
            self._rest += more
            if not more:
                return {"gone": "the process that watches it was killed"}
            if b"\n" not in self._rest:
                return None
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, str] = json.loads(line)
        return told


def _end(process: subprocess.Popen[bytes], ending: bool) -> None:
    """Ends a host, unless it is `ending` by itself, and all of its session. It is not reaped before that: its number
    must not be another's by then."""
    assert process.stdin is not None
    assert process.stdout is not None
    if not ending:
        os.kill(process.pid, signal.SIGTERM)
    until = time.monotonic() + _GENTLY
    while time.monotonic() < until:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
