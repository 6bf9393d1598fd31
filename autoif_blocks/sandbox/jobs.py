"""What a worker knows of a job and of a child: read from outside, from files and clocks that a child cannot change."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field

from autoif_blocks.sandbox.policy import PHASE_ALONE, PHASE_LOADED, PHASE_NEW, Outcome

IDLE_SHARE = 0.05  # of a processor: who gets less is waiting, unless twenty others compete for it


@dataclass
class Job:
    """A function and its inputs. The file holds the phase, a byte for each input, and what only a child reads."""

    number: int
    fd: int
    count: int
    alone: bool = False
    """It asked for a child of its own."""
    started: float = 0.0
    """When a child first came to it, by the clock; 0 before that."""
    spent: float = 0.0
    """Processor time of the children that ran it before."""
    starved: int = 0
    given_up: bool = False

    def phase(self) -> int:
        return os.pread(self.fd, 1, 0)[0]

    def at(self) -> int:
        """Where it is: 0 until it has loaded, then the number of its input, `count + 1` when all is done."""
        progress = os.pread(self.fd, 1 + self.count, 0)
        found = progress.find(0, 1)
        if found < 0:
            return self.count + 1
        return found if progress[0] == PHASE_LOADED else 0

    def close_open(self, outcome: Outcome) -> None:
        progress = os.pread(self.fd, 1 + self.count, 0)
        os.pwrite(self.fd, progress.replace(b"\0", bytes([outcome])), 0)

    def renew(self) -> None:
        """As if it had not begun; the results that it has stay."""
        os.pwrite(self.fd, bytes([PHASE_NEW]), 0)


@dataclass
class Child:
    """A process and what it was given to run, the first one being what it runs now."""

    pid: int
    pidfd: int
    jobs: deque[Job]
    reached: int = 0
    """How many jobs it has passed, and its processor time when it came to the one that it runs now."""
    started_cpu: float = 0.0
    at: int = 0
    """The input it was at when we last looked, and its processor time when it got there."""
    since_cpu: float = 0.0
    cpu: float = 0.0
    """Its processor time when we last looked, and when that was."""
    looked: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    """Seconds since it got to where it is in which it hardly computed."""
    killed: bool = False
    idle: bool = False
    """It was killed for waiting, not for computing."""

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.started_cpu = self.since_cpu = self.cpu
        self.at, self.waited = 0, 0.0
        if self.jobs:
            self.jobs[0].started = self.jobs[0].started or time.monotonic()

    def passed(self) -> list[Job]:
        """Take out what it is done with: jobs that have all results, and those that it must not run beside others."""
        passed = []
        while self.jobs:
            job = self.jobs[0]
            if job.phase() == PHASE_ALONE and not job.alone:
                job.alone, job.started = True, 0.0
                job.renew()
            elif job.at() <= job.count:
                break
            passed.append(self.jobs.popleft())
        if passed:
            self.reached += len(passed)
            self._begin()
        return passed

    def measure(self, now: float, most: float) -> None:
        """Note its processor time. If the watcher itself comes late, the machine stood still, not the child."""
        cpu = cpu_time(self.pid)
        elapsed = min(now - self.looked, most)
        if self.jobs:
            self.jobs[0].started += now - self.looked - elapsed
        if cpu - self.cpu < IDLE_SHARE * elapsed:
            self.waited += elapsed
        self.looked, self.cpu = now, cpu


def cpu_time(pid: int) -> float:
    """Seconds of processor time that a process has used; the kernel numbers its clock so (see clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)
