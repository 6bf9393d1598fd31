"""The parent's side: workers, queues, and the promise that every job gets an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox.policy import (
    DONE,
    JOB,
    STARVED_RETRIES,
    WALL_FACTOR,
    Outcome,
    SandboxConfig,
    imports_any,
    pack,
)

log = logging.getLogger(__name__)

DEPTH = 32  # jobs in one worker at a time: enough to run in batches
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


class Job:
    """One function and its inputs on their way through a worker."""

    def __init__(self, number: int, code: str, inputs: Sequence[str]) -> None:
        self.number = number
        self.count = len(inputs)
        self.retried = False
        self.data = pack(code, inputs)
        self.fd = -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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

    async def ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                message = await asyncio.get_running_loop().sock_recv(self.socket, MESSAGE_BYTES)
        except TimeoutError:
            message = f"no sign of life within {START_SECONDS:.0f} s".encode()
        except OSError as error:
            message = str(error).encode()
        if message != b"ready":
            said = message.decode(errors="replace") or f"it ended with code {self.process.wait()}"
            raise SandboxUnavailable(f"a sandbox worker could not start: {said}")

    def send(self, job: Job) -> None:
        job.open()
        try:
            socket.send_fds(self.socket, [JOB.pack(job.number, job.count)], [job.fd])
        except ConnectionError:
            pass  # it just died: whoever reads from it will find out, and the job in it
        except BaseException:
            job.close()
            raise
        self.jobs[job.number] = job

    def forget(self, job: Job) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(JOB.pack(job.number, 0))

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


class Sandbox:
    """Runs functions that nobody trusts: `async with Sandbox(config) as sandbox: await sandbox.execute(code, inputs)`.

    It belongs to the event loop in which it was entered, which may run in any thread. Its workers die with that thread.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self._heavy_modules = self.config.heavy_modules()
        self._workers: dict[bool, list[Worker]] = {}
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(self.config.worker_count() * DEPTH)
        self._retries: dict[asyncio.Task[None], Job] = {}
        self._numbers = 0
        longest = WALL_FACTOR * (self.config.function_timeout + self.config.call_timeout)
        self._patience = (1 + STARVED_RETRIES) * longest + START_SECONDS
        self._open = False

    async def __aenter__(self) -> Self:
        if sys.platform != "linux":
            raise SandboxUnavailable(f"model-written code is run only on Linux, and this is {sys.platform}")
        if self.config.isolation == "process":
            log.warning(
                "isolation: process. Limits and separate processes do not stop hostile code: it can read your "
                "files, write them, and use the network"
            )
        self._open = True
        try:
            await self._team(heavy=False)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._open = False
        workers = [worker for team in self._workers.values() for worker in team]
        jobs = [job for worker in workers for job in worker.jobs.values()] + list(self._retries.values())
        for task in self._retries:
            task.cancel()
        for worker in workers:
            self._stop(worker)
        for job in jobs:
            job.close()
            if not job.done.done():
                job.done.set_exception(SandboxUnavailable("the sandbox was closed while functions ran"))
        self._workers.clear()

    def _stop(self, worker: Worker) -> None:
        if worker.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(worker.socket)
        worker.close()

    async def execute(self, code: str, inputs: Sequence[str]) -> list[Outcome]:
        """Call `evaluate(input)` as the code defines it, on every input, in one fresh process: one outcome for each.

        Waits for its turn when all workers are busy. Never raises for what the code does.
        """
        if not inputs:
            return []
        heavy = bool(self._heavy_modules) and imports_any(code, self._heavy_modules)
        await self._slots.acquire()
        # From here on the slot belongs to the job, not to the caller: who is cancelled leaves a child behind that
        # still has to be killed and reaped.
        try:
            self._numbers += 1
            job = Job(self._numbers, code, inputs)
            await self._send(job, heavy)
        except BaseException:
            self._slots.release()
            raise
        try:
            await job.done
        except asyncio.CancelledError:
            for worker in self._workers.get(heavy, ()):
                if job.number in worker.jobs:
                    worker.forget(job)
            raise
        except SandboxUnavailable:
            job.close()
            raise
        try:
            return job.outcomes()
        finally:
            job.close()

    async def _send(self, job: Job, heavy: bool) -> None:
        worker = min(await self._team(heavy), key=lambda worker: len(worker.jobs))
        worker.send(job)
        if worker.watchdog is None:
            worker.watch(self._patience)

    async def _team(self, heavy: bool) -> list[Worker]:
        """The workers of one kind: started when first needed, and again where one has died."""
        team = self._workers.setdefault(heavy, [])
        if len(team) < self.config.worker_count():
            async with self._starting:
                missing = self.config.worker_count() - len(team)
                if missing > 0 and self._open:
                    team += await self._start(missing, heavy)
        if not self._open:
            raise SandboxUnavailable("the sandbox is not open: use `async with Sandbox(config) as sandbox`")
        return team

    async def _start(self, count: int, heavy: bool) -> list[Worker]:
        workers: list[Worker] = []
        try:
            for _ in range(count):
                workers.append(Worker(self.config, self._heavy_modules if heavy else ()))
            for worker in workers:
                await worker.ready()
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        for worker in workers:
            asyncio.get_running_loop().add_reader(worker.socket, self._read, worker)
        return workers

    def _read(self, worker: Worker) -> None:
        """Answers have come, or the worker is gone."""
        while True:
            try:
                message = worker.socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if len(message) != DONE.size:
                return self._lost(worker, message.decode(errors="replace"))
            job = worker.jobs.pop(DONE.unpack(message)[0], None)
            worker.watch(self._patience)
            if job is not None:
                self._finish(job)

    def _lost(self, worker: Worker, said: str) -> None:
        """A worker died with jobs in it. Each gets one more chance: it may have been another's fault."""
        self._stop(worker)
        self._workers[worker.heavy].remove(worker)
        log.warning(
            "a sandbox worker died with %d functions in it: %s",
            len(worker.jobs),
            said or f"exit code {worker.process.returncode}",
        )
        for job in worker.jobs.values():
            if job.retried or job.done.done():
                job.fill(Outcome.CRASH)
                self._finish(job)
            else:
                job.retried = True
                task = asyncio.get_running_loop().create_task(self._again(job, worker.heavy))
                self._retries[task] = job
                task.add_done_callback(self._retries.pop)
        worker.jobs.clear()

    async def _again(self, job: Job, heavy: bool) -> None:
        try:
            if not job.done.done():
                return await self._send(job, heavy)
        except (OSError, SandboxUnavailable) as error:
            if not job.done.done():
                job.done.set_exception(error)
        self._finish(job)

    def _finish(self, job: Job) -> None:
        self._slots.release()
        if job.done.done():
            job.close()  # its caller is gone
        else:
            job.done.set_result(None)
