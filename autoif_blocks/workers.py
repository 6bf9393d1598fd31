"""Tasks in processes of their own: each of them ends with a result, or with a sentence about what became of it.

Not `multiprocessing.Pool`: it replaces a worker that dies and waits for ever for the task that died with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import multiprocess
from multiprocess import resource_tracker
from multiprocess.connection import wait

from .errors import AutoIFError, StopRun, disk_trouble
from .stopping import StopFlag, signal_name

_LAST_WORDS = 3.0  # seconds that the other tasks have, after one has failed, to keep what they have paid for
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_in_workers(run_task: Callable[[int], object], ranks: Sequence[int], workers: int, flag: StopFlag) -> None:
    """Calls `run_task` with each rank, in `workers` processes; leaves no process behind.

    Raises:
        StopRun: a process died, or a task failed in a way that was not foreseen.
        AutoIFError: what a task raised.
        OSError: a disk is full, or a place cannot be written.
    """
    waiting = deque(ranks)
    crew: list[_Worker] = []
    tracked = resource_tracker._resource_tracker._fd is not None
    try:
        with _signals_held():  # a child hears none of them before it can say what to do with them
            crew += (_Worker(run_task) for _ in range(min(workers, len(ranks))))
        while waiting or any(worker.rank is not None for worker in crew):
            for worker in crew:
                if worker.rank is None and waiting:
                    worker.begin(waiting.popleft())
            busy = [worker for worker in crew if worker.rank is not None]
            signs = set(wait([sign for worker in busy for sign in (worker.answers, worker.process.sentinel)], 0.2))
            for worker in busy:
                if {worker.answers, worker.process.sentinel} & signs and (failure := worker.outcome()) is not None:
                    raise failure
    except BaseException as error:
        if flag.look() is None or not isinstance(error, KeyboardInterrupt):
            flag.request("failure", str(error))
        flag.request("failure", "", 0.0)
        raise
    finally:
        _dismiss(crew, _LAST_WORDS)
        if not tracked:
            resource_tracker._resource_tracker._stop()  # a process that spawning starts, and nothing here needs


class _Worker:
    """A process as its parent sees it."""

    def __init__(self, run_task: Callable[[int], object]) -> None:
        # Spawned, not forked from a server: a signal to the whole group would end the server, and with it all news of
        # its children.
        context = multiprocess.get_context("spawn")
        self.answers, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(run_task, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # ours alone: it ends with the child
        self.rank: int | None = None

    def begin(self, rank: int) -> None:
        self.rank = rank
        with contextlib.suppress(OSError):  # it has died: `outcome` says so
            self.answers.send(rank)

    def outcome(self) -> Exception | None:
        """What became of the task: an error, or None if it is done."""
        rank, self.rank = self.rank, None
        try:
            if self.answers.poll():
                answer: Exception | None = self.answers.recv()
                return answer
        except (EOFError, OSError):
            pass
        self.process.join(_LAST_WORDS)
        return StopRun(f"the process of task {rank} {_end(self.process.exitcode)}. {_KEPT}")


_KEPT = "What was paid for is kept: run again to continue"


def _end(code: int | None) -> str:
    if code is None:
        return "does not answer any more"
    if code >= 0:
        return f"ended with exit code {code} before its work was done: does a block call os._exit?"
    hint = " (by hand, or by the kernel for want of memory)" if -code == signal.SIGKILL else ""
    return f"was killed by {signal_name(-code)}{hint}"


def _dismiss(crew: list[_Worker], patience: float) -> None:
    for worker in crew:
        with contextlib.suppress(OSError):
            worker.answers.send(None)
    until = time.monotonic() + patience
    try:
        for worker in crew:
            worker.process.join(max(0.0, until - time.monotonic()))
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.process.join()
            worker.process.close()
            worker.answers.close()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    resource_tracker.ensure_running()  # to start it, with the first child, unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the worker


def _serve(run_task: Callable[[int], object], orders: Any, owner: int) -> None:
    # A terminal's Ctrl-C reaches every process of the group; the run's own process hears it and tells us by the flag.
    # A handler that does nothing rather than SIG_IGN, which whatever we start would inherit.
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_die_with, args=(owner,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while (rank := orders.recv()) is not None:
            orders.send(_attempt(run_task, rank))


def _attempt(run_task: Callable[[int], object], rank: int) -> Exception | None:
    try:
        run_task(rank)
    except AutoIFError as error:
        return error
    except BaseException as error:
        # Other people's exceptions may not survive the way to another process.
        if isinstance(error, OSError) and disk_trouble(error, "") is not None:
            return OSError(error.errno, error.strerror, error.filename)  # whoever runs the tasks knows their folder
        return StopRun(f"task {rank}: {type(error).__name__}: {error}")
    return None


def _die_with(owner: int) -> None:
    """Ends this worker when the run that it belongs to is gone: a kill -9 must not leave it writing beside the next."""
    while Path(f"/proc/{owner}").exists():
        time.sleep(0.2)
    os._exit(1)
