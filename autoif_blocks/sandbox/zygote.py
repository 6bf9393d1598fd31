"""A worker: a fresh interpreter that has imported what functions use, and forks a child to run them.

A function has a child of its own, unless it is dull (see `dull.py`): a child that was given several runs those that it
proves to be, one after the other, and hands the others back.

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
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autoif_blocks.sandbox import child as inside
from autoif_blocks.sandbox import layers
from autoif_blocks.sandbox.jobs import Child, Job
from autoif_blocks.sandbox.kernel import Gate
from autoif_blocks.sandbox.policy import (
    ANSWER,
    DONE,
    JOB,
    LIGHT,
    MIN_LOAD_TIMEOUT,
    MOST_JOBS,
    PHASE_NEW,
    STARVED_RETRIES,
    WAIT_FACTOR,
    WALL_FACTOR,
    Outcome,
)

CHILDREN = Path("/proc/thread-self/children")
CHILDREN_AT_ONCE = 2  # a function that hangs does not hold up its worker
BATCH = 16  # functions in one child, if they are dull
INT = struct.Struct("i")
_FDS = socket.CMSG_LEN(MOST_JOBS * INT.size)
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


class Zygote:
    def __init__(self, settings: Settings, channel: socket.socket, gate: Gate) -> None:
        self.settings = settings
        self.gate = gate
        self.load_timeout = max(settings.call_timeout, MIN_LOAD_TIMEOUT)
        self.socket = channel
        self.waiting: deque[Job] = deque()
        self.done: list[bytes] = []  # not told yet
        self.children: dict[int, Child] = {}  # by pidfd
        self.poll = select.poll()
        self.poll.register(self.socket, select.POLLIN)
        self.tick = settings.call_timeout / TICKS
        self.cpu_seconds = math.ceil(settings.function_timeout + self.load_timeout) + 1

    def serve(self) -> None:
        while True:
            timeout = self.tick * 1000 if self.children else None
            for fd, _ in self.poll.poll(timeout):
                if fd != self.socket.fileno():
                    self.reap(self.children.pop(fd))
                elif not self.accept():
                    return
            self.watch()
            self.answer()
            while self.waiting and len(self.children) < CHILDREN_AT_ONCE:
                self.fork()

    def accept(self) -> bool:
        """Take all jobs that have come: those that can share a child should find one another."""
        while True:
            try:
                # Not `recv_fds`, which loses its flags before Python 3.13.
                message, extra, _, _ = self.socket.recvmsg(MOST_JOBS * JOB.size, _FDS, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not message:
                return False  # the parent is gone or has closed: so do we, and our children with us
            fds = (fd for _, _, data in extra for (fd,) in INT.iter_unpack(data))
            for number, count in JOB.iter_unpack(message):
                if count:
                    self.waiting.append(Job(number, next(fds), count))
                else:
                    self.forget(number)

    def forget(self, number: int) -> None:
        for job in list(self.waiting):
            if job.number == number:
                self.waiting.remove(job)
                self.close(job)
        for child in self.children.values():
            for job in child.jobs:
                job.given_up = job.given_up or job.number == number
            if child.jobs and child.jobs[0].given_up:
                self.kill(child)

    def fork(self) -> None:
        """Start a child: for one function that asked to be alone, or for a few, of which some may turn out to be."""
        jobs = deque([self.waiting.popleft()])
        while not jobs[0].alone and self.waiting and len(jobs) < BATCH and not self.waiting[0].alone:
            jobs.append(self.waiting.popleft())
        jobs[0].alone = len(jobs) == 1
        pid, pidfd = self.gate.fork()
        if pid == 0:
            inside.run(self.gate, [(job.fd, job.count) for job in jobs])
        layers.limit_child(self.gate, pid, self.cpu_seconds * len(jobs))
        self.children[pidfd] = Child(pid, pidfd, jobs)
        self.poll.register(pidfd, select.POLLIN)

    def kill(self, child: Child) -> None:
        child.killed = True
        self.gate.kill(child.pid)

    def watch(self) -> None:
        """Kill every child that has not advanced by a call in its time."""
        now = time.monotonic()
        for child in self.children.values():
            if child.killed or now - child.looked < self.tick:
                continue
            child.measure(now, 2 * self.tick)
            self.take(child)
            if not child.jobs:
                self.kill(child)  # it has nothing left to do but to end
                continue
            job, budget = child.jobs[0], self.settings.function_timeout
            spent = job.spent + child.cpu - child.started_cpu
            if job.given_up or spent > budget or now - job.started > WALL_FACTOR * budget:
                job.given_up, child.idle = True, spent <= budget
                self.kill(child)
                continue
            at = job.at()
            if at != child.at:
                child.at, child.since_cpu, child.waited = at, child.cpu, 0.0
                continue
            limit = self.settings.call_timeout if at else self.load_timeout
            if child.cpu - child.since_cpu > limit or child.waited > WAIT_FACTOR * limit:
                child.idle = child.cpu - child.since_cpu <= limit
                self.kill(child)

    def take(self, child: Child) -> None:
        """Answer for what a child is done with; what it left for a child of its own has to wait for that."""
        self.put_back(child.passed())

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Let them wait for another child, before those that came after them, unless nothing is left to do."""
        for job in reversed([*jobs]):
            if job.given_up or job.at() > job.count:
                self.close(job)
            else:
                self.waiting.appendleft(job)

    def close(self, job: Job) -> None:
        os.close(job.fd)
        self.done.append(DONE.pack(job.number))

    def answer(self) -> None:
        """Tell of all that is done: to wake the parent takes longer than to tell it."""
        if self.done:
            self.socket.send(ANSWER + b"".join(self.done))
            self.done.clear()

    def reap(self, child: Child) -> None:
        _, status, usage = os.wait4(child.pid, 0)
        self.poll.unregister(child.pidfd)
        os.close(child.pidfd)
        self.sweep()
        child.cpu = usage.ru_utime + usage.ru_stime
        self.take(child)
        if not child.jobs:
            return
        job = child.jobs[0]
        job.spent += child.cpu - child.started_cpu
        if child.idle and usage.ru_nvcsw <= 1 and job.starved < STARVED_RETRIES:
            # It never gave up the processor of its own accord (once: when it died). It was not waiting, it was kept
            # waiting, by a machine that has too much to do; its answer must not depend on that.
            job.starved += 1
            job.started, job.given_up = 0.0, False
        elif job.phase() != PHASE_NEW or not child.reached:
            self.blame(job, child, status)
        if job.at() <= job.count:
            job.renew()
        self.put_back(child.jobs)

    def blame(self, job: Job, child: Child, status: int) -> None:
        """Write down what became of the call that a child did not come back from."""
        at = job.at()
        job.alone = True  # it has held up others once
        if at == 0:
            job.close_open(Outcome.LOAD_ERROR)
        elif job.given_up or job.spent > self.settings.function_timeout:
            job.close_open(Outcome.TIMEOUT)
        else:
            os.pwrite(job.fd, bytes([self.cause(child, status)]), at)  # the rest deserves an answer of its own

    def cause(self, child: Child, status: int) -> Outcome:
        if child.killed:
            return Outcome.TIMEOUT
        return Outcome.CRASH if os.WIFSIGNALED(status) else Outcome.EXIT

    def sweep(self) -> None:
        """Kill what a child left behind, and what that leaves. Its orphans are ours: we are their subreaper."""
        if self.gate.sealed:
            return  # it had no way to start a process
        known = {child.pid for child in self.children.values()}
        while orphans := set(map(int, CHILDREN.read_text().split())) - known:
            for pid in orphans:
                self.gate.kill(pid)
                os.waitpid(pid, 0)


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
        inside.warm_up()
        gc.enable()
        channel.send(b"ready")
        zygote.serve()
    except BaseException:
        channel.send(traceback.format_exc().encode()[-4000:])
