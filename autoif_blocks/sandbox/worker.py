"""One worker as seen from outside, and the functions on their way through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox.policy import ANSWER, DONE, JOB, Outcome, SandboxConfig, pack

START_SECONDS = 60.0
MESSAGE_BYTES = 1 << 16

# The package by its path and without its `__init__`, which would import datatrove into every worker.
_BOOT = """
import sys, types
for name, path in zip(("autoif_blocks", "autoif_blocks.sandbox"), sys.argv[1:3]):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [path]
from autoif_blocks.sandbox import zygote
zygote.main(sys.argv[3])
"""

# LD_BIND_NOW: what the dynamic linker puts off, every child would do again.
# Numeric libraries start a thread for each core otherwise, and a process with threads cannot fork.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_BIND_NOW": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def command(settings: dict[str, object]) -> list[str]:
    """A fresh interpreter. Not -I: it ignores PYTHONHASHSEED, and a set must have the same order in every run."""
    here = Path(__file__).resolve().parent
    return [sys.executable, "-s", "-P", "-c", _BOOT, str(here.parent), str(here), json.dumps(settings)]


_OUTCOMES = {int(outcome): outcome for outcome in Outcome}


class Group:
    """Functions that one caller waits for."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def one_ended(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Job:
    """One function and its inputs on their way through a worker."""

    def __init__(self, number: int, code: str, inputs: Sequence[str], group: Group) -> None:
        self.number = number
        self.count = len(inputs)
        self.group = group
        self.retried = self.ended = False
        self.data = pack(code, inputs)
        self.fd = -1

    def open(self) -> None:
        """A fresh file, which a lost worker has never written to."""
        self.close()
        self.fd = os.memfd_create("job", os.MFD_CLOEXEC)
        os.pwrite(self.fd, self.data, 0)

    def fill(self, outcome: Outcome) -> None:
        """Write down what became of the inputs without a result."""
        data = os.pread(self.fd, self.count, 1)
        os.pwrite(self.fd, data.replace(b"\0", bytes([outcome])), 1)

    def outcomes(self) -> list[Outcome]:
        """What the file says, if it says something that makes sense."""
        data = os.pread(self.fd, self.count, 1)
        return [_OUTCOMES.get(code, Outcome.CRASH) for code in data.ljust(self.count, b"\0")]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Worker:
    """A zygote as seen from outside."""

    def __init__(self, config: SandboxConfig, modules: Sequence[str]) -> None:
        self.heavy = bool(modules)
        self.jobs: dict[int, Job] = {}
        self.watchdog: asyncio.TimerHandle | None = None
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            settings = {
                "fd": theirs.fileno(),
                "call_timeout": config.call_timeout,
                "function_timeout": config.function_timeout,
                "memory_mb": config.memory_mb,
                "isolation": config.isolation,
                "modules": list(modules),
            }
            self.socket.setblocking(False)
            self.process = subprocess.Popen(
                command(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    async def ready(self, must: bool = True) -> bool:
        """Waits until it has started; False if something has killed it meanwhile: by hand, or for want of memory.

        Raises:
            SandboxUnavailable: it says why it cannot, or it `must` have started by now.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                message = await asyncio.get_running_loop().sock_recv(self.socket, MESSAGE_BYTES)
        except TimeoutError:
            message = f"no sign of life within {START_SECONDS:.0f} s".encode()
        except ConnectionError:
            message = b""
        except OSError as error:
            message = str(error).encode()
        if message == b"ready":
            return True
        if not message and self.process.wait() == -signal.SIGKILL and not must:
            return False
        said = message.decode(errors="replace") or f"it ended with code {self.process.wait()}"
        raise SandboxUnavailable(f"a sandbox worker could not start: {said}")

    def send(self, jobs: Sequence[Job]) -> None:
        """At most as many as one message holds, see `JOB`."""
        try:
            for job in jobs:
                job.open()
            message = b"".join(JOB.pack(job.number, job.count) for job in jobs)
            socket.send_fds(self.socket, [message], [job.fd for job in jobs])
        except ConnectionError:
            pass  # it just died: whoever reads from it will find out, and the jobs in it
        except BaseException:
            for job in jobs:
                job.close()
            raise
        self.jobs.update((job.number, job) for job in jobs)

    def forget(self, job: Job) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(JOB.pack(job.number, 0))

    def receive(self) -> list[Job] | str | None:
        """Jobs that are done; None if nothing has come; what it said last, if it is gone."""
        try:
            message = self.socket.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        if not message.startswith(ANSWER):
            return message.decode(errors="replace")
        done = (self.jobs.pop(number, None) for (number,) in DONE.iter_unpack(message[len(ANSWER) :]))
        return [job for job in done if job is not None]

    def watch(self, seconds: float) -> None:
        """It keeps the time of its children; if it should ever not, this does, more coarsely: no answer, no worker."""
        if self.watchdog is not None:
            self.watchdog.cancel()
        self.watchdog = asyncio.get_running_loop().call_later(seconds, self.process.kill) if self.jobs else None

    def close(self) -> None:
        """Kill the worker and all in its session. Idempotent."""
        if self.watchdog is not None:
            self.watchdog.cancel()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.socket.close()
