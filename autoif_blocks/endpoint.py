"""One server as far as it is known: what it takes, how it fails, and whether it is passed over for a while."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

import aiohttp

from .errors import ModelUnavailable, Retry
from .limits import AdaptiveLimit, ServerHealth
from .models import ModelConfig

_OPENS_AFTER = 5  # failures in a row
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Busy(Retry):
    """The server has too much to do. That is no fault of the request: it is asked as long as others are served."""


class Unreachable(Busy):
    """Nobody listens."""

    advice = "is the server running?"

    @classmethod
    def of(cls, error: Exception) -> Unreachable:
        ssl = isinstance(error, aiohttp.ClientSSLError)
        number = 0 if ssl else getattr(error, "errno", None) or 0
        why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        told = cls(f"cannot connect ({why})")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            told.advice = "is the host's name in base_url right?"
        elif ssl:
            told.advice = "does it speak https? If not, base_url begins with http://"
        return told


class Lost(Retry):
    """The connection broke."""


class Slow(Retry):
    """No answer in time."""


class Endpoint:
    """One server, as far as it is known."""

    def __init__(self, url: str, config: ModelConfig) -> None:
        self.url = url
        self.limit = AdaptiveLimit(config.slots, config.adaptive and config.mode == "live")
        self.used = 0
        self.asked = 0
        self.dead: ModelUnavailable | None = None
        """why it will never answer: a wrong key, an unknown model"""
        self._failures = 0
        self._gone = False
        self._pause = _FIRST_PAUSE
        self._open_until = 0.0

    def health(self) -> ServerHealth:
        rest = self.resting(time.monotonic())
        parts = urlsplit(self.url)
        return ServerHealth(
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), self.used, self.limit.now,
            self.limit.ceiling, time.time() + rest if rest else 0.0, str(self.dead or ""),
        )  # fmt: skip

    def has_room(self) -> bool:
        return self.used < (self.limit.now if self._failures < _OPENS_AFTER else 1)

    def resting(self, now: float) -> float:
        """Seconds for which it is passed over; 0 if it is not."""
        return max(0.0, self._open_until - now)

    def succeeded(self, sent: float) -> bool:
        """Whether it had gone and is back."""
        self.limit.note(sent, refused=False)
        back, self._gone = self._gone, False
        self._failures, self._pause, self._open_until = 0, _FIRST_PAUSE, 0.0
        return back

    def failed(self, sent: float, failure: Retry) -> bool:
        """Whether it is passed over from now on."""
        if isinstance(failure, Unreachable):
            self._gone = True  # which tells nothing of how much it can take
        else:
            self.limit.note(sent, refused=isinstance(failure, (Busy, Slow)))
        now = time.monotonic()
        self._failures += 1
        if self._failures < _OPENS_AFTER or now < self._open_until:
            return False
        self._open_until = now + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        return True
