"""What a server that the run has started is doing: a small file that its supervisor writes and its clients read.

The clients may be in other processes, and a server has another address each time it is started.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ModelUnavailable

LOOK = 0.2  # seconds between two looks at the file
_NOTICED_WITHIN = 1.0  # seconds from the end of a server until its supervisor has told of it

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class ServerState:
    """What a supervisor tells."""

    start: int = 0
    """how many times the server has been started"""
    url: str = ""
    """where it answers, up to and including /v1; empty while it does not"""
    failure: str = ""
    """why it will not be started again"""

    @classmethod
    def read(cls, path: Path) -> ServerState:
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()

    def write(self, path: Path) -> None:
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(path)


def wish(path: Path) -> Path:
    """The file whose being there says that somebody wants the server: a run that finds all in its cache needs none."""
    return path.with_suffix(".wanted")


class Served:
    """A server that the run starts, as a client sees it. Used on one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = ServerState()
        self._looking = asyncio.Lock()

    async def ready(self, sleep: Sleep) -> ServerState:
        """Waits, by `sleep`, until it answers; who comes first has it started.

        Raises:
            ModelUnavailable: it does not start, or ends again and again.
        """
        if not self._known.url:
            async with self._looking:  # one looks for all who wait
                if not self._look().url:
                    wish(self._path).touch()
                while not self._look().url:
                    await sleep(LOOK)
        return self._known

    async def gone_since(self, start: int, disconnected: bool, sleep: Sleep) -> bool:
        """Whether a request that was sent after its `start` has failed because it went down.

        Raises:
            ModelUnavailable: it will not be started again.
        """
        patience = time.monotonic() + (_NOTICED_WITHIN if disconnected else 0.0)
        while (state := self._look()).start == start and state.url:
            if time.monotonic() >= patience:
                return False
            await sleep(LOOK)
        return True

    def _look(self) -> ServerState:
        self._known = ServerState.read(self._path)
        if self._known.failure:
            raise ModelUnavailable(self._known.failure)
        return self._known
