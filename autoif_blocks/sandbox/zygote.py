"""A worker: a fresh interpreter that has imported what functions use, and forks once for every function.

It starts from `exec` with an empty environment, never from a fork of the main process, whose memory holds API keys. It
never sees a function or an input: those stand in a file that only the child reads. It watches the child's progress from
outside, kills it when it stops advancing, and writes down what became of the calls that the child left open.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import random
import select
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from autoif_blocks.sandbox import child, layers
from autoif_blocks.sandbox.kernel import Gate
from autoif_blocks.sandbox.policy import (
    DONE,
    JOB,
    LIGHT,
    MIN_LOAD_TIMEOUT,
    PHASE_NEW,
    STARVED_RETRIES,
    WAIT_FACTOR,
    WALL_FACTOR,
    Outcome,
)

CHILDREN = Path("/proc/thread-self/children")
IDLE_SHARE = 0.05  # of a processor: who gets less is waiting, unless twenty others compete for it
TICKS = 4  # looks at a child's progress in one call_timeout: a timeout comes at most a quarter late


@dataclass
class Settings:
    """What the parent tells a worker on its command line."""

    fd: int
    call_timeout: float
    function_timeout: float
    memory_mb: int
    isolation: str
    modules: list[str] = field(default_factory=list)


@dataclass
class Job:
    number: int
    fd: int
    count: int
    started: float
    pid: int = 0
    pidfd: int = -1
    next: int = 0
    """The first input without a result when we last looked; 0 while loading."""
    since_cpu: float = 0.0
    """Processor time of the child when it got there, and when we last looked."""
    cpu: float = 0.0
    looked: float = 0.0
    waited: float = 0.0
    """Seconds since it got there in which it hardly computed."""
    spent: float = 0.0
    """Processor time of the children before this one."""
    killed: bool = False
    given_up: bool = False
    idle: bool = False
    """It was killed for waiting, not for computing."""
    starved: int = 0

    def first_open(self) -> int:
        """Where the child is: 0 while it loads, then the number of its input, `count + 1` when all is done."""
        progress = os.pread(self.fd, 1 + self.count, 0)
        found = progress.find(0, 1)
        if found < 0:
            return self.count + 1
        return found if progress[0] != PHASE_NEW else 0

    def close_open(self, outcome: Outcome) -> None:
        progress = os.pread(self.fd, 1 + self.count, 0)
        os.pwrite(self.fd, progress.replace(b"\0", bytes([outcome])), 0)


class Zygote:
    def __init__(self, settings: Settings, channel: socket.socket, gate: Gate) -> None:
        self.settings = settings
        self.gate = gate
        self.load_timeout = max(settings.call_timeout, MIN_LOAD_TIMEOUT)
        self.socket = channel
        self.jobs: dict[int, Job] = {}  # by pidfd
        self.poll = select.poll()
        self.poll.register(self.socket, select.POLLIN)
        self.tick = settings.call_timeout / TICKS
        self.cpu_seconds = math.ceil(settings.function_timeout + self.load_timeout) + 1

    def serve(self) -> None:
        while True:
            timeout = self.tick * 1000 if self.jobs else None
            for fd, _ in self.poll.poll(timeout):
                if fd != self.socket.fileno():
                    self.reap(self.jobs.pop(fd))
                elif not self.accept():
                    return
            self.watch()

    def accept(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self.socket, JOB.size, 1)
        if not message:
            return False  # the parent is gone or has closed: so do we, and our children with us
        number, count = JOB.unpack(message)
        if count:
            self.fork(Job(number, fds[0], count, time.monotonic()))
        else:
            for job in self.jobs.values():
                if job.number == number:
                    job.given_up = True
                    self.kill(job)
        return True

    def fork(self, job: Job) -> None:
        job.pid, job.pidfd = self.gate.fork()
        if job.pid == 0:
            child.run(self.gate, job.fd, job.count)
        layers.limit_child(self.gate, job.pid, self.cpu_seconds)
        job.next, job.since_cpu, job.cpu, job.waited = 0, 0.0, 0.0, 0.0
        job.looked, job.killed, job.given_up, job.idle = time.monotonic(), False, False, False
        self.jobs[job.pidfd] = job
        self.poll.register(job.pidfd, select.POLLIN)

    def kill(self, job: Job) -> None:
        job.killed = True
        self.gate.kill(job.pid)

    def watch(self) -> None:
        """Kill every child that has not advanced by a call in its time."""
        now = time.monotonic()
        for job in self.jobs.values():
            if job.killed or now - job.looked < self.tick:
                continue
            cpu = cpu_time(job.pid)
            # If we ourselves come late, the whole machine stood still: that is not the child's waiting.
            elapsed = min(now - job.looked, 2 * self.tick)
            if cpu - job.cpu < IDLE_SHARE * elapsed:
                job.waited += elapsed
            job.looked, job.cpu = now, cpu
            budget = self.settings.function_timeout
            if job.spent + cpu > budget or now - job.started > WALL_FACTOR * budget:
                job.given_up, job.idle = True, job.spent + cpu <= budget
                self.kill(job)
                continue
            at = job.first_open()
            if at != job.next:
                job.next, job.since_cpu, job.waited = at, cpu, 0.0
                continue
            limit = self.settings.call_timeout if at else self.load_timeout
            if cpu - job.since_cpu > limit or job.waited > WAIT_FACTOR * limit:
                job.idle = cpu - job.since_cpu <= limit
                self.kill(job)

    def reap(self, job: Job) -> None:
        _, status, usage = os.wait4(job.pid, 0)
        self.poll.unregister(job.pidfd)
        os.close(job.pidfd)
        job.spent += usage.ru_utime + usage.ru_stime
        self.sweep()
        at = job.first_open()
        if job.idle and usage.ru_nvcsw <= 1 and job.starved < STARVED_RETRIES:
            # It never gave up the processor of its own accord (once: when it died). It was not waiting, it was kept
            # waiting, by a machine that has too much to do; its answer must not depend on that.
            job.starved += 1
            job.started = time.monotonic()
            os.pwrite(job.fd, bytes([PHASE_NEW]), 0)
            return self.fork(job)
        if at == 0:
            job.close_open(Outcome.LOAD_ERROR)
        elif job.given_up or job.spent > self.settings.function_timeout:
            job.close_open(Outcome.TIMEOUT)
        elif at <= job.count:
            os.pwrite(job.fd, bytes([self.cause(job, status)]), at)
            if at < job.count:
                # The rest of its inputs deserve an answer of their own.
                os.pwrite(job.fd, bytes([PHASE_NEW]), 0)
                return self.fork(job)
        os.close(job.fd)
        self.socket.send(DONE.pack(job.number))

    def cause(self, job: Job, status: int) -> Outcome:
        if job.killed:
            return Outcome.TIMEOUT
        return Outcome.CRASH if os.WIFSIGNALED(status) else Outcome.EXIT

    def sweep(self) -> None:
        """Kill what a child left behind, and what that leaves. Its orphans are ours: we are their subreaper."""
        if self.gate.sealed:
            return  # it had no way to start a process
        known = {job.pid for job in self.jobs.values()}
        while orphans := set(map(int, CHILDREN.read_text().split())) - known:
            for pid in orphans:
                self.gate.kill(pid)
                os.waitpid(pid, 0)


def cpu_time(pid: int) -> float:
    """Seconds of processor time that a process has used; the kernel numbers its clock so (see clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)


def preload(settings: Settings) -> None:
    for name in LIGHT.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in settings.modules:
        importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError(f"one of {', '.join(settings.modules)} starts threads: it cannot be preloaded")
    # Children take the generators over as they are: every function draws the same numbers in every run.
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


def main(arguments: str) -> None:
    options = json.loads(arguments)
    if options.pop("doctor", False):
        _, found = layers.build(**options, isolation="full")
        print(json.dumps(found))
        return
    settings = Settings(**options)
    # Wherever the parent had it, here it must be among the numbers that a child closes.
    channel = socket.socket(fileno=os.dup(settings.fd))
    os.close(settings.fd)
    assert channel.fileno() < layers.MAX_FILES
    try:
        gc.disable()  # a collection before the freeze leaves holes all over the pages that the children share
        preload(settings)
        gate, found = layers.build(settings.memory_mb, settings.isolation)
        if why := layers.missing(found, settings.isolation):
            channel.send(why.encode())
            return
        zygote = Zygote(settings, channel, gate)
        for name in [name for name in sys.modules if name.partition(".")[0] == "autoif_blocks"]:
            del sys.modules[name]
        os.environ.clear()
        child.warm_up()
        gc.enable()
        channel.send(b"ready")
        zygote.serve()
    except BaseException:
        channel.send(traceback.format_exc().encode()[-4000:])
