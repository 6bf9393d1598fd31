"""The parent's side: workers, queues, and the promise that every job gets an answer."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox.policy import MOST_JOBS, STARVED_RETRIES, WALL_FACTOR, Outcome, SandboxConfig, imports_any
from autoif_blocks.sandbox.worker import START_SECONDS, Group, Job, Worker

log = logging.getLogger(__name__)

ATTEMPTS = 3  # to start a worker that something else kills while it starts
DEPTH = 32  # jobs in one worker at a time: enough to run in batches


class Sandbox:
    """Runs functions that nobody trusts: `async with Sandbox(config) as sandbox: await sandbox.execute(code, inputs)`.

    It belongs to the event loop in which it was entered, which may run in any thread. Its workers die with that thread.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self._heavy_modules = self.config.heavy_modules()
        self._workers: dict[bool, list[Worker]] = {}
        self._starting = asyncio.Lock()
        self._size = self.config.worker_count()
        self._slots = asyncio.Semaphore(self._size * DEPTH)
        self._turn = asyncio.Lock()
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
            job.group.fail(SandboxUnavailable("the sandbox was closed while functions ran"))
        self._workers.clear()

    def _stop(self, worker: Worker) -> None:
        if worker.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(worker.socket)
        worker.close()

    async def execute(self, code: str, inputs: Sequence[str]) -> list[Outcome]:
        """Call `evaluate(input)` as the code defines it, on every input: one outcome for each.

        Waits for its turn when all workers are busy. Never raises for what the code does.
        """
        return (await self.execute_all([(code, inputs)]))[0]

    async def execute_all(self, functions: Sequence[tuple[str, Sequence[str]]]) -> list[list[Outcome]]:
        """The same for several functions, each with its inputs. That they are asked for together takes less time, and
        changes nothing for any of them."""
        found: list[list[Outcome]] = [[] for _ in functions]
        kinds: dict[bool, list[int]] = {}
        for place, (code, inputs) in enumerate(functions):
            if inputs:
                heavy = bool(self._heavy_modules) and imports_any(code, self._heavy_modules)
                kinds.setdefault(heavy, []).append(place)
        for heavy, places in kinds.items():
            for start in range(0, len(places), MOST_JOBS):
                some = places[start : start + MOST_JOBS]
                for place, outcomes in zip(some, await self._run([functions[i] for i in some], heavy), strict=True):
                    found[place] = outcomes
        return found

    async def _run(self, functions: Sequence[tuple[str, Sequence[str]]], heavy: bool) -> list[list[Outcome]]:
        await self._enter(len(functions))
        # From here on the slots belong to the jobs, not to the caller: who is cancelled leaves a child behind that
        # still has to be killed and reaped.
        try:
            group = Group(len(functions))
            first, self._numbers = self._numbers + 1, self._numbers + len(functions)
            jobs = [Job(first + i, code, inputs, group) for i, (code, inputs) in enumerate(functions)]
            await self._send(jobs, heavy)
        except BaseException:
            self._leave(len(functions))
            raise
        try:
            await group.done
            return [job.outcomes() for job in jobs]
        except asyncio.CancelledError:
            for worker in self._workers.get(heavy, ()):
                for job in jobs:
                    if job.number in worker.jobs:
                        worker.forget(job)
            raise
        finally:
            for job in jobs:
                if job.ended or not group.done.cancelled():
                    job.close()

    async def _enter(self, count: int) -> None:
        """Takes so many slots. One caller at a time takes them, or each might hold some that another waits for."""
        async with self._turn:
            for taken in range(count):
                try:
                    await self._slots.acquire()
                except BaseException:
                    self._leave(taken)
                    raise

    def _leave(self, count: int) -> None:
        for _ in range(count):
            self._slots.release()

    async def _send(self, jobs: Sequence[Job], heavy: bool) -> None:
        worker = min(await self._team(heavy), key=lambda worker: len(worker.jobs))
        worker.send(jobs)
        if worker.watchdog is None:
            worker.watch(self._patience)

    async def _team(self, heavy: bool) -> list[Worker]:
        """The workers of one kind: started when first needed, and again where one has died."""
        team = self._workers.setdefault(heavy, [])
        if len(team) < self._size:
            async with self._starting:
                missing = self._size - len(team)
                if missing > 0 and self._open:
                    team += await self._start(missing, heavy)
        if not self._open:
            raise SandboxUnavailable("the sandbox is not open: use `async with Sandbox(config) as sandbox`")
        return team

    async def _start(self, count: int, heavy: bool) -> list[Worker]:
        workers: list[Worker] = []
        modules = self._heavy_modules if heavy else ()
        try:
            for _ in range(count):
                workers.append(Worker(self.config, modules))
            for place in range(count):
                attempts = 1
                while not await workers[place].ready(attempts == ATTEMPTS):
                    workers[place].close()
                    workers[place] = Worker(self.config, modules)
                    attempts += 1
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        for worker in workers:
            asyncio.get_running_loop().add_reader(worker.socket, self._read, worker)
        return workers

    def _read(self, worker: Worker) -> None:
        """Answers have come, or the worker is gone."""
        while (found := worker.receive()) is not None:
            if isinstance(found, str):
                return self._lost(worker, found)
            worker.watch(self._patience)
            for job in found:
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
            if job.group.done.done():
                self._finish(job)  # nobody waits for it any more
            elif job.retried:
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
            if not job.group.done.done():
                return await self._send([job], heavy)
        except (OSError, SandboxUnavailable) as error:
            job.group.fail(error)
        self._finish(job)

    def _finish(self, job: Job) -> None:
        self._slots.release()
        job.ended = True
        if job.group.done.done():
            job.close()  # its caller is gone
        else:
            job.group.one_ended()
