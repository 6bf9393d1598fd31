"""Noticing that whoever started this process is gone, so that a kill -9 leaves nothing behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def when_orphaned(then: Callable[[], None]) -> None:
    """Calls `then`, from a thread, once stdin has ended and once the parent process is gone: twice, or more often.

    Two signs, for each can fail: a child forked by the parent may keep the pipe open, and a stdin of its own tells
    nothing. PR_SET_PDEATHSIG is no third: it fires when the *thread* that started us ends.
    """
    for watch in (_stdin_ends, _parent_ends):
        threading.Thread(target=watch, args=(then,), daemon=True).start()


def _stdin_ends(then: Callable[[], None]) -> None:
    while os.read(0, 4096):
        pass
    then()


def _parent_ends(then: Callable[[], None]) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    then()
