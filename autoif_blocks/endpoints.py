"""The servers of one model: who is asked next, what came back, and who is passed over for a while.

A slot is granted to the request whose step comes first in the recipe, since the most work waits behind it; among
equals, to the one that asked first. Of the servers with room the least loaded gets it. A server that fails several
times in a row while others work is left alone for a second, then for two, … up to 30 s, and tried with a single
request after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from .answers import Answer, NoModel, read_answer, said, seconds_to_wait
from .batches import Batches
from .endpoint import Busy, Endpoint, Lost, Slow, Unreachable
from .errors import DropRecord, ModelUnavailable, Retry
from .limits import RateLimit, Sleep, TimeLimit
from .models import ModelConfig
from .plain import plain

log = logging.getLogger(__name__)

_BUSY_STATUS = {429, 503, 529}
_RETRY_STATUS = {408, 409, 425}
_REFUSED_STATUS = {400, 413, 422}
_NO_LIMIT = contextlib.nullcontext()
_MOST_BYTES = {"answer": 1 << 26, "file": 1 << 30}  # of a body, unpacked: no server may fill the memory


class Endpoints:
    """All servers of a model. Made, used and closed on one event loop."""

    def __init__(self, config: ModelConfig, urls: Sequence[str], batches: Path | None = None) -> None:
        """`batches` is where it is written down what `mode: batch` has sent."""
        self.config = config
        self.all = [Endpoint(url.rstrip("/"), config) for url in urls]
        self._used = 0
        self._waiting: list[tuple[int, int, asyncio.Future[Endpoint], Endpoint | None]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._back = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self.sleep = Sleep()
        self._requests = RateLimit(config.rpm, self.sleep) if config.rpm else None
        self._tokens = RateLimit(config.tpm, self.sleep) if config.tpm else None
        first, between = config.first_byte_timeout, config.read_timeout
        self._whole = TimeLimit(config.timeout, "no answer")
        self._first_byte = TimeLimit(first, "not a byte") if first else _NO_LIMIT
        self._next_bytes = TimeLimit(between, "not a byte more") if between else _NO_LIMIT
        self._batches: Batches | None = None
        if config.mode == "batch":
            call, failure = partial(self._call, self.all[0]), partial(self._failure, self.all[0], proven=False)
            self._batches = Batches(config, self.all[0].url, call, failure, self.shown, self.sleep, batches)

    @property
    def name(self) -> str:
        return ", ".join(endpoint.url for endpoint in self.all)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for limit in (self._whole, self._first_byte, self._next_bytes):
            if isinstance(limit, TimeLimit):
                limit.close()
        if self._batches is not None:
            await self._batches.close()
        if self._session is not None:
            await self._session.close()

    def alternative(self, endpoint: Endpoint) -> bool:
        """Whether another server could be asked right away."""
        now = time.monotonic()
        return any(e is not endpoint and e.dead is None and not e.resting(now) for e in self.all)

    async def pause(self, seconds: float) -> bool:
        """Waits so long, or until a server that had gone is back; tells whether one is.

        Pauses grow while nobody listens. Who comes back shall not wait for them: its slots keep it from being overrun.
        """
        return await self.sleep.until(self._back, seconds)

    def stop(self) -> None:
        """Nothing new will be sent: who sleeps before another attempt need not wait any longer."""
        self.sleep.end()
        self._back.set()
        if self._batches is not None:
            self._batches.stop()

    async def take(self, priority: int, avoid: Endpoint | None = None) -> Endpoint:
        """Waits for a slot at a server, at another than `avoid` if there is one; the lowest priority is served first.
        Whoever takes a slot must give it back."""
        endpoint = None if self._waiting else self._free(avoid)
        if endpoint is not None:
            self._grant(endpoint)
            return endpoint
        turn: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn, avoid))
        self._serve()  # by the rules for who waits: it may be that only a timer will wake it
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(turn.result())
            raise

    def give_back(self, endpoint: Endpoint) -> None:
        self._used -= 1
        endpoint.used -= 1
        if self._waiting:
            self._serve()

    def _grant(self, endpoint: Endpoint) -> None:
        self._used += 1
        endpoint.used += 1
        endpoint.asked += 1

    def _serve(self) -> None:
        while self._waiting:
            _, _, turn, avoid = self._waiting[0]
            if not turn.done():
                endpoint = self._free(avoid)
                if endpoint is None:
                    return self._wake_later()
                self._grant(endpoint)
                turn.set_result(endpoint)
            heapq.heappop(self._waiting)

    def _wake_later(self) -> None:
        """A server that rests comes back by itself: no slot that is given back tells of it."""
        if self._used >= self.config.slots or self._timer is not None:
            return
        now = time.monotonic()
        if rests := [rest for endpoint in self.all if (rest := endpoint.resting(now))]:
            self._timer = asyncio.get_running_loop().call_later(min(rests), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._serve()

    def _free(self, avoid: Endpoint | None) -> Endpoint | None:
        if self._used >= self.config.slots:
            return None
        if len(self.all) == 1:
            endpoint = self.all[0]
            return endpoint if endpoint.used < endpoint.limit.now else None
        now = time.monotonic()
        alive = [endpoint for endpoint in self.all if endpoint.dead is None] or self.all
        awake = [endpoint for endpoint in alive if not endpoint.resting(now)]
        # With all of them resting there is nothing to gain from waiting: the pauses between attempts are enough.
        room = [endpoint for endpoint in awake or alive if not awake or endpoint.has_room()]
        if len(room) > 1:
            room = [endpoint for endpoint in room if endpoint is not avoid]
        return min(room, key=lambda endpoint: (endpoint.used / endpoint.limit.now, endpoint.asked), default=None)

    async def post(self, endpoint: Endpoint, payload: bytes, count: int, tokens: float, proven: bool) -> Answer:
        """Sends a request and reads the answer.

        Args:
            payload: the request as JSON.
            count: completions that it asks for.
            tokens: what it will take, as far as one can tell; for the limit on tokens.
            proven: whether a request to this model has succeeded.

        Raises:
            Retry: the same request may succeed later.
            DropRecord: this request is refused.
            ModelUnavailable: every request to this server would be refused.
        """
        if self._session is None:
            self._session = self._connect()
        if self._requests is not None:
            await self._requests.take()
        entry = await self._tokens.take(tokens) if self._tokens is not None else None
        sent = time.monotonic()
        try:
            answer = self._read(await self._exchange(endpoint, payload, proven), count)
        except Retry as failure:
            if entry is not None and self._tokens is not None:
                self._tokens.correct(entry, 0.0)
            if endpoint.failed(sent, failure) and len(self.all) > 1:
                log.warning("%s is passed over for a while: %s", endpoint.url, failure.reason)
            raise
        except ModelUnavailable as error:
            endpoint.dead = error
            raise
        except DropRecord:
            self._succeeded(endpoint, sent)  # it did its work
            raise
        self._succeeded(endpoint, sent)
        if entry is not None and self._tokens is not None:
            self._tokens.correct(entry, answer.prompt_tokens + answer.completion_tokens or entry[1])
        return answer

    def _succeeded(self, endpoint: Endpoint, sent: float) -> None:
        if endpoint.succeeded(sent):
            self._back.set()
            self._back = asyncio.Event()

    def _read(self, raw: bytes, count: int) -> Answer:
        try:
            return read_answer(raw, count)
        except Retry as failure:
            raise type(failure)(self.shown(failure.reason)) from failure

    def _connect(self) -> aiohttp.ClientSession:
        config = self.config
        limits = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=config.connect_timeout, sock_read=None)
        return aiohttp.ClientSession(
            timeout=limits, connector=aiohttp.TCPConnector(limit=0), headers=self.headers(),
            cookie_jar=aiohttp.DummyCookieJar(),
        )  # fmt: skip

    async def _exchange(self, endpoint: Endpoint, payload: bytes, proven: bool) -> bytes:
        if self._batches is not None:
            status, raw = await self._batches.ask(payload)
            headers: Mapping[str, Any] = {}
        else:
            status, headers, raw = await self._call(endpoint, "POST", "/chat/completions", payload)
        if status != 200:
            raise self._failure(endpoint, status, headers, raw, proven)
        return raw

    async def _call(
        self, endpoint: Endpoint, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, Any], bytes]:
        """Status, headers and body. Raises Retry or ModelUnavailable where there is no answer."""
        assert self._session is not None
        address = f"{endpoint.url}{path}"
        try:
            # Redirects are not followed: the prompts, and most of them the key, belong to the server that was named.
            with self._whole:
                with self._first_byte:
                    response = await self._session.request(
                        method, address, data=data, headers=headers, allow_redirects=False
                    )
                most = _MOST_BYTES["file" if path.endswith("/content") else "answer"]
                return response.status, response.headers, await self._body(response, most)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable.of(error) from error
        except TimeoutError as error:
            raise Slow(str(error)) from error
        except aiohttp.InvalidURL as error:
            raise ModelUnavailable(
                f"{self.config.model} at {endpoint.url}: that is no address: check base_url"
            ) from error
        except aiohttp.ClientResponseError as error:
            failure = NoModel("what it says is not HTTP")
            failure.advice = "does it speak https? Then base_url begins with https://"
            raise failure from error
        except (aiohttp.ClientError, OSError) as error:
            raise Lost(f"connection lost ({type(error).__name__})") from error

    async def _body(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """All of it, to its end: else the connection would be closed."""
        pieces: list[bytes] = []
        left, content = most, response.content
        try:
            while not content.at_eof():
                with _NO_LIMIT if content.is_eof() else self._next_bytes:  # mostly all of it has come with the head
                    piece = await content.readany()
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise Lost(f"an answer of more than {most >> 20} MB")
            return b"".join(pieces)
        except BaseException:
            response.close()
            raise

    def headers(self) -> dict[str, str]:
        """Raises ModelUnavailable if the key cannot stand in one."""
        secret = self.config.secret()
        if not secret.isprintable():
            raise ModelUnavailable(f"the key that {self.config.api_key} names holds a line break or the like")
        kind = {"Content-Type": "application/json"}
        return {**kind, "Authorization": f"Bearer {secret}"} if secret else kind

    def _failure(
        self, endpoint: Endpoint, status: int, headers: Mapping[str, Any], raw: bytes, proven: bool
    ) -> Exception:
        words = self.shown(said(raw))
        told = f"HTTP {status}" + (f": {words}" if words else "")
        wait = seconds_to_wait(headers.get("Retry-After"))
        if status in _BUSY_STATUS:
            return Busy(told, wait)
        if status in _RETRY_STATUS or status >= 500:
            return Retry(told, wait)
        # Where requests have succeeded, a 403 is about this one: some endpoints refuse a prompt's content so.
        if status in _REFUSED_STATUS or (status == 403 and proven):
            return DropRecord("request_refused", told)
        advice = {
            401: "check the key in the environment variable that the model's api_key names",
            403: "the key may not use this model",
            404: f"is '{self.config.model}' the name that the server uses, and does base_url end in /v1?",
        }.get(status, "check base_url and the account")
        if 300 <= status < 400:
            # Without its query, which may quote anything.
            place = self.shown(str(headers.get("Location", "nowhere")).split("?")[0])
            advice = f"it points to {place}: put the right address into base_url"
        told = f"{told}{'' if words else ' (no reason given)'}"
        return ModelUnavailable(f"{self.config.model} at {endpoint.url}: {told}; {advice}")

    def shown(self, words: str) -> str:
        """A server's words, short, with the key blotted out should it quote it, and nothing that steers a terminal."""
        secret = self.config.secret()
        return plain(words.replace(secret, "***") if secret else words)[:300]
