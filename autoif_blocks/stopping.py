"""How a run ends early: a word that all its processes hear, time for what is in flight, and no more.

A stop is a small file in the run's work folder. Whoever wants the run to end writes it (a signal's handler, a budget,
a task that fails), and every process looks at it a few times a second. From then on nothing new begins: readers end,
requests are refused, records that wait for a block stay where they are. What is in flight has until the deadline;
then it is cancelled. Everything that was finished flows down to its step's file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from weakref import WeakValueDictionary

GRACE = 10.0  # seconds that requests in flight are waited for
ABORT_WITHIN = 0.9  # seconds from a second signal to the end of the process
LOOK = 0.1  # seconds between two looks at the file
_SAME_SIGNAL = 0.1  # seconds: timeout(1), for one, tells a process and then its whole group
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Stop:
    """Why a run ends early, and until when it may take its time."""

    kind: str
    """`signal`, `budget` or `failure`"""
    why: str
    deadline: float
    """in seconds since 1970: the tasks of a run may be on several machines"""


class StopFlag:
    """The stop of one run as one process sees it. Get it by `stop_flag`, so that a process has one for each run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop: Stop | None = None

    def request(self, kind: str, why: str = "", grace: float = GRACE) -> None:
        """Asks the run to end. The first to ask is the one whose reason counts; a later one may shorten the time."""
        deadline = time.time() + grace
        before = self.look()
        if before is not None:
            kind, why, deadline = before.kind, before.why, min(deadline, before.deadline)
        self.stop = Stop(kind, why, deadline)
        aside = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        # Without its folder the run is at its very beginning or end: this process knows, and there is no other.
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps(asdict(self.stop)))
            aside.replace(self.path)

    def look(self) -> Stop | None:
        """The stop, as it is now for all processes."""
        with contextlib.suppress(OSError, ValueError):
            told = Stop(**json.loads(self.path.read_text()))
            if self.stop is None or told.deadline < self.stop.deadline:
                self.stop = told
        return self.stop

    @property
    def overdue(self) -> bool:
        """Whether the time for what was in flight is over."""
        return self.stop is not None and time.time() >= self.stop.deadline


def signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 77` of one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_flags: WeakValueDictionary[str, StopFlag] = WeakValueDictionary()


def stop_flag(path: str | Path) -> StopFlag:
    """This process's flag for the run whose stop would be written to `path`."""
    return _flags.setdefault(str(path), StopFlag(Path(path)))


@contextlib.contextmanager
def told_by_signals(flag: StopFlag, aborted: Callable[[], None] | None) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the run to end, a second one raises KeyboardInterrupt wherever the run is.

    Only handlers that nobody has set are taken over, and only in the main thread, where Python allows it. `aborted` is
    called a little later if the second signal has not ended the block by then.
    """
    over = threading.Event()
    first: float | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            # Where a budget has stopped the run, the user's word makes it shorter, not different.
            return flag.request("signal", signal.Signals(number).name, GRACE if flag.stop is None else 0.0)
        if now - first < _SAME_SIGNAL:
            return
        flag.request("signal", "", 0.0)
        if aborted is not None:
            threading.Thread(target=end, daemon=True).start()
        raise KeyboardInterrupt

    def end() -> None:
        if not over.wait(ABORT_WITHIN) and aborted is not None:
            aborted()

    before = {}
    if threading.current_thread() is threading.main_thread():
        defaults = (signal.SIG_DFL, signal.default_int_handler)
        before = {number: now for number in _SIGNALS if (now := signal.getsignal(number)) in defaults}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def told_when(flag: StopFlag, tell: Callable[[Stop], None], overdue: Callable[[], None] | None) -> Iterator[None]:
    """Calls `tell` when a stop is asked for, and `overdue` when the run has not ended long after its deadline.

    From a thread of its own: a signal's handler may interrupt whoever is writing to the terminal.
    """
    told = False

    def watch() -> None:
        nonlocal told
        stop = flag.look()
        if stop is None:
            return
        if not told:
            told = True
            tell(stop)
        if overdue is not None and time.time() > stop.deadline + GRACE / 2:
            overdue()

    with every(LOOK, watch, "autoif-stop"):
        yield


@contextlib.contextmanager
def every(seconds: float, call: Callable[[], None], name: str) -> Iterator[None]:
    """Calls from a thread of its own, of that name, so that a busy run cannot starve who watches it."""
    ending = threading.Event()

    def loop() -> None:
        while not ending.wait(seconds):
            call()

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
