"""The model client: chat completions from any OpenAI-compatible server, asynchronously, on aiohttp.

Failures are classified here, once, for the whole project:

| what came back                                         | class            | consequence                             |
|--------------------------------------------------------|------------------|-----------------------------------------|
| 200 with choices                                       |                  | completions, cached                     |
| 200 with fewer choices than asked for, or broken ones  |                  | the rest is asked for singly            |
| 200 with a body cut off, not JSON, or without choices  | Retry            | asked again, with growing pauses        |
| 408, 409, 425, 5xx; connection lost; time-out          | Retry            | the same; at last the record is dropped |
| 429, 503, 529; nobody listens                          | Busy             | the same, as long as others are served  |
| 400, 413, 422 (too long, filtered), a late 403         | DropRecord       | the record goes, the run goes on        |
| the same, for a request with `n` above 1               |                  | asked with `n` = 1: was it about `n`?   |
| 401, 402, 403, 404, 405, other 4xx, a redirect         | ModelUnavailable | the run stops: all would fail           |
| nobody listens, and no request has succeeded yet       | ModelUnavailable | after `connect_patience` seconds        |
| no request has succeeded while one was tried and tried | ModelUnavailable | what is finished is kept                |
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp

from .accounting import Meter
from .answers import Completion, read_answer, said, seconds_to_wait
from .cache import Cache, request_keys
from .errors import DropRecord, ModelUnavailable, Retry
from .records import content_hash

Message = dict[str, str]
SIMULATED = "simulated"
_ENV_REFERENCE = re.compile(r"\A\$\{(\w+)(:-)?\}\Z")
_BUSY_STATUS = {429, 503, 529}
_RETRY_STATUS = {408, 409, 425}
_REFUSED_STATUS = {400, 413, 422}
_DEAD_AFTER = 16  # refusals of a step that has had no completion; failures with no success between
_LONGEST_RETRY_AFTER = 600.0
_NEVER = float("-inf")


@dataclass(frozen=True)
class ModelConfig:
    """A model that steps can name: where it is served, and how hard it may be asked."""

    base_url: str
    """up to and including /v1; `simulated` is the built-in teacher"""
    model: str
    """the name that the server knows it by"""
    api_key: str = "${AUTOIF_API_KEY:-}"
    """a reference to an environment variable, `${NAME}`; the key itself never stands in a recipe"""
    max_concurrency: int = 64
    """requests in flight"""
    max_n: int | None = None
    """the most choices to ask for in one request; None: as many as a step wants"""
    send_seed: bool = True
    """whether requests carry a `seed`: distinct for each sample, so that samples of one prompt differ"""
    timeout: float = 600.0
    """seconds one request may take in total"""
    connect_patience: float = 5.0
    """seconds to wait for a server that has never answered"""
    max_retries: int = 10
    """further attempts at a request that fails in a way that may pass"""
    max_retry_wait: float = 60.0
    """the longest pause between two attempts, in seconds"""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """sent with every request: temperature, top_p, max_tokens, …; a step's own options win"""
    price: Mapping[str, float] = field(default_factory=dict)
    """cost of a million tokens: {input: …, output: …}"""

    def __post_init__(self) -> None:
        if self.base_url != SIMULATED:
            url = urlsplit(self.base_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError(f"base_url must be like http://HOST:8000/v1 (or 'simulated'), got '{self.base_url}'")
            if url.username is not None or url.query:  # not shown: it may be a password
                raise ValueError("base_url must not hold a user, a password or a query: the key goes into api_key")
        if self.api_key and not _ENV_REFERENCE.match(self.api_key):
            raise ValueError(
                "api_key must name an environment variable, like ${OPENAI_API_KEY}: a key in a recipe leaks"
            )
        for name in ("max_concurrency", "timeout", "max_retry_wait"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.max_n is not None and self.max_n < 1:
            raise ValueError(f"max_n must be at least 1, got {self.max_n}")
        if unknown := set(self.price) - {"input", "output"}:
            raise ValueError(f"price has 'input' and 'output', not '{min(unknown)}'")

    def missing_key(self) -> str | None:
        """The name of the environment variable that should hold the key and does not; None if all is well."""
        match = _ENV_REFERENCE.match(self.api_key)
        return match[1] if match and not match[2] and match[1] not in os.environ else None

    def secret(self) -> str:
        """The key, read from the environment now. Never store or print it."""
        match = _ENV_REFERENCE.match(self.api_key)
        return os.environ.get(match[1], "").strip() if match else ""


class Client:
    """Asks one model. Made, used and closed on one event loop."""

    def __init__(
        self, config: ModelConfig, base_url: str, cache: Cache | None = None, seed: int = 0,
        admit: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """`admit` is asked before each request is sent; it may raise to refuse it."""
        self.config = config
        self._admit = admit
        self.url = base_url.rstrip("/")
        self._endpoint = f"{self.url}/chat/completions"
        self._cache = cache
        self._base_seed = int(content_hash("sampling seed", seed), 16) % 2**30
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None
        self._meter = Meter()
        self._knows_n = False  # the server has given several choices at once
        self._one_at_a_time = False
        self._proven = False  # it has answered, in this run or in one that the cache remembers
        self._last_success = _NEVER
        self._failed = 0  # requests that were given up since
        self._refused: Counter[int] = Counter()  # by step, that is by the id() of its meter

    async def complete(
        self, messages: Sequence[Message], n: int = 1, start: int = 0, sampling: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
    ) -> list[Completion]:  # fmt: skip
        """Samples `start` to `start + n - 1` of the prompt, from the cache or from the server.

        Raises:
            DropRecord: the server refuses this request, and asking again would not help.
            ModelUnavailable: the server refuses every request.
        """
        meter = meter or self._meter
        request = {"model": self.config.model, "messages": list(messages), **self.config.sampling, **(sampling or {})}
        keys = request_keys({**request, "base_seed": self._base_seed}, start, n)
        # Equal samples in flight wait for one another: asked side by side they would get different answers of which
        # the cache keeps one, and a replay would no longer equal the run. Sorted, so that none wait in a circle.
        locks = [self._asking.setdefault(key, asyncio.Lock()) for key in sorted(keys)]
        held: list[asyncio.Lock] = []
        try:
            for lock in locks:
                await lock.acquire()
                held.append(lock)
            return await self._complete(request, keys, start, meter)
        finally:
            for lock in held:
                lock.release()

    async def _complete(self, request: dict[str, Any], keys: list[bytes], start: int, meter: Meter) -> list[Completion]:
        found = self._recall(keys)
        hits = len(keys) - found.count(None)
        meter.hits += hits
        self._proven |= hits > 0
        most = self.config.max_n or len(keys)
        while missing := [place for place, completion in enumerate(found) if completion is None]:
            spans = _spans(missing, 1 if self._one_at_a_time else most)
            asked = [self._ask(request, start + first, count, meter) for first, count in spans]
            # All are waited for, even if one fails: what was paid for is kept.
            answers = await asyncio.gather(*asked, return_exceptions=True) if spans[1:] else [await asked[0]]
            for (first, _), answer in zip(spans, answers, strict=True):
                for place, completion in answer.items() if isinstance(answer, dict) else ():
                    found[first + place] = completion
                    self._keep(keys[first + place], completion)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            most = 1  # what the server left out is asked for singly, side by side
        return [completion for completion in found if completion is not None]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _recall(self, keys: list[bytes]) -> list[Completion | None]:
        values = self._cache.get_many(keys) if self._cache is not None else [None] * len(keys)
        return [Completion(*json.loads(value)) if value is not None else None for value in values]

    def _keep(self, key: bytes, completion: Completion) -> None:
        if self._cache is not None:
            self._cache.put(key, json.dumps([completion.text, completion.finish_reason]))

    async def _ask(self, request: dict[str, Any], index: int, count: int, meter: Meter) -> dict[int, Completion]:
        """At least one and at most `count` completions, by their distance from sample `index`."""
        body = dict(request)
        if self.config.send_seed:
            # Choice i of a request with seed s is sample s + i (vLLM's own convention), so that splitting a request
            # neither repeats samples nor changes them on a server that is deterministic by seed.
            body["seed"] = body.get("seed", self._base_seed) + index
        if count > 1:
            body["n"] = count
        began = time.monotonic()
        failures = deque([began], maxlen=self.config.max_retries // 2 + 1)
        attempt, n_refused = 0, False
        while True:
            try:
                # The slot is given back before any pause: a sleeping request must not keep a ready one waiting.
                async with self._slots:
                    if self._admit is not None:
                        self._admit()
                    meter.requests += 1
                    meter.retries += attempt > 0
                    completions = await self._post(body, count, meter)
            except DropRecord as refusal:
                if count == 1:
                    self._stop_if_all_are_refused(refusal, meter)
                    raise
                count, n_refused = 1, True  # in any wording: what does the server say to the same without `n`?
                del body["n"]
            except Retry as failure:
                attempt += 1
                self._give_up_if_hopeless(failure, attempt, began, failures[0])
                failures.append(time.monotonic())
                await asyncio.sleep(self._pause(failure, attempt))
            else:
                break
        self._proven, self._last_success, self._failed = True, time.monotonic(), 0
        self._knows_n |= len(completions) > 1
        self._one_at_a_time |= n_refused or (count > 1 and not self._knows_n)
        meter.completions += len(completions)
        return completions

    def _stop_if_all_are_refused(self, refusal: DropRecord, meter: Meter) -> None:
        self._refused[id(meter)] += 1
        if not meter.completions and not meter.hits and self._refused[id(meter)] >= _DEAD_AFTER:
            raise ModelUnavailable(f"{self.url} refuses every request of a step: {refusal.detail}") from refusal

    def _give_up_if_hopeless(self, failure: Retry, attempt: int, began: float, lately: float) -> None:
        """Raises if another attempt makes no sense. `lately` is when the later half of the attempts began.

        Whose fault it is shows in what became of the others lately: if any succeeded, it is the request's; if none
        did, the server's, except that the last request of a run has no others to compare with.
        """
        now = time.monotonic()
        never = self._last_success == _NEVER
        where = f"{self.config.model} at {self.url}: {failure.reason}"
        if never and isinstance(failure, _Unreachable):
            if now - began >= self.config.connect_patience:
                raise ModelUnavailable(f"{where}; is the server running?")
            return
        if attempt <= self.config.max_retries:
            return
        others_succeed = self._last_success >= lately
        if isinstance(failure, _Busy) and others_succeed:
            return  # our turn will come
        if others_succeed or (self._proven and not isinstance(failure, _Busy) and self._failed < _DEAD_AFTER):
            self._failed += 1
            raise DropRecord("request_failed", f"{failure.reason}, {attempt} attempts")
        raise ModelUnavailable(
            f"{where}; no request has succeeded for {now - (began if never else self._last_success):.0f} s. "
            "What is finished is kept: run again to continue"
        )

    def _pause(self, failure: Retry, attempt: int) -> float:
        pause = min(self.config.max_retry_wait, 0.25 * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)
        # A little later than the server asked for: not all at the very same moment.
        return max(pause, min(failure.after or 0.0, _LONGEST_RETRY_AFTER) * random.uniform(1.0, 1.1))

    async def _post(self, body: dict[str, Any], count: int, meter: Meter) -> dict[int, Completion]:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=self.config.timeout, connect=None, sock_connect=10)
            self._session = aiohttp.ClientSession(
                timeout=limits, connector=aiohttp.TCPConnector(limit=0), headers=self._headers(),
                cookie_jar=aiohttp.DummyCookieJar(),
            )  # fmt: skip
        payload = json.dumps(body).encode()
        try:
            # Redirects are not followed: the prompts, and most of them the key, belong to the server that was named.
            async with self._session.post(self._endpoint, data=payload, allow_redirects=False) as response:
                raw = await response.read()
                if response.status != 200:
                    raise self._failure(response.status, response.headers, raw)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Unreachable(f"cannot connect ({getattr(error, 'strerror', None) or error})") from error
        except TimeoutError as error:
            raise Retry(f"no answer within {self.config.timeout:g} s") from error
        except aiohttp.InvalidURL as error:
            raise ModelUnavailable(f"{self.url} is no address: check base_url") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"connection lost ({type(error).__name__})") from error
        try:
            answer = read_answer(raw, count)
        except Retry as failure:
            raise Retry(self._shown(failure.reason)) from failure
        price = self.config.price
        meter.prompt_tokens += answer.prompt_tokens
        meter.completion_tokens += answer.completion_tokens
        meter.cost += answer.prompt_tokens * price.get("input", 0.0) / 1e6
        meter.cost += answer.completion_tokens * price.get("output", 0.0) / 1e6
        return dict(answer.completions)

    def _headers(self) -> dict[str, str]:
        secret = self.config.secret()
        if not secret.isprintable():
            raise ModelUnavailable(f"the key that {self.config.api_key} names holds a line break or the like")
        kind = {"Content-Type": "application/json"}
        return {**kind, "Authorization": f"Bearer {secret}"} if secret else kind

    def _failure(self, status: int, headers: Mapping[str, str], raw: bytes) -> Exception:
        words = self._shown(said(raw))
        told = f"HTTP {status}" + (f": {words}" if words else "")
        wait = seconds_to_wait(headers.get("Retry-After"))
        if status in _BUSY_STATUS:
            return _Busy(told, wait)
        if status in _RETRY_STATUS or status >= 500:
            return Retry(told, wait)
        # Where requests have succeeded, a 403 is about this one: some endpoints refuse a prompt's content so.
        if status in _REFUSED_STATUS or (status == 403 and self._proven):
            return DropRecord("request_refused", told)
        advice = {
            401: "check the key in the environment variable that the model's api_key names",
            403: "the key may not use this model",
            404: f"is '{self.config.model}' the name that the server uses, and does base_url end in /v1?",
        }.get(status, "check base_url and the account")
        if 300 <= status < 400:
            advice = f"it points to {headers.get('Location', 'nowhere')}: put the right address into base_url"
        return ModelUnavailable(f"{self.url} answers HTTP {status}: {words or 'no reason given'}; {advice}")

    def _shown(self, words: str) -> str:
        """A server's words, short, with the key blotted out should it quote it."""
        secret = self.config.secret()
        return (words.replace(secret, "***") if secret else words)[:300]


class _Busy(Retry):
    """The server has too much to do. That is no fault of the request: it is asked as long as others are served."""


class _Unreachable(_Busy):
    """Nobody listens."""


def _spans(places: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, none longer than `most`, as (first, count)."""
    spans: list[tuple[int, int]] = []
    for place in places:
        first, count = spans[-1] if spans else (place, most)
        if count < most and first + count == place:
            spans[-1] = (first, count + 1)
        else:
            spans.append((place, 1))
    return spans
