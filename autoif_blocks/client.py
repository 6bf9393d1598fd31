"""The model client: chat completions from any OpenAI-compatible server, asynchronously, on aiohttp.

Failures are classified here, once, for the whole project:

| what came back                                             | class            | consequence                         |
|------------------------------------------------------------|------------------|-------------------------------------|
| 200 with choices                                           |                  | completions, cached                 |
| 200 with a body cut off, not JSON, or without choices      | Retry            | asked again, with growing pauses    |
| 408, 409, 425, 429, 5xx; connection lost; time-out         | Retry            | the same; `Retry-After` is obeyed   |
| 400, 413, 422 (too long, filtered, refused)                | DropRecord       | the record goes, the run goes on    |
| 400 or 422 about `n`                                       |                  | the server gets `n` requests        |
| 401, 402, 403, 404, 405, other 4xx                         | ModelUnavailable | the run stops: all would fail       |
| nobody listens, and no request has succeeded yet           | ModelUnavailable | after `connect_patience` seconds    |
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp

from .accounting import Meter
from .cache import Cache, request_key
from .errors import DropRecord, ModelUnavailable, Retry
from .records import content_hash

Message = dict[str, str]
SIMULATED = "simulated"
_ENV_REFERENCE = re.compile(r"\A\$\{(\w+)(:-)?\}\Z")
_RETRY_STATUS = {408, 409, 425, 429}
_REFUSED_STATUS = {400, 413, 422}
_DEAD_AFTER_REFUSALS = 16


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
        if self.base_url != SIMULATED and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url must start with http:// or https:// (or be 'simulated'), got '{self.base_url}'")
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
        return os.environ.get(match[1], "") if match else ""


@dataclass(frozen=True)
class Completion:
    """One choice of an answer, as the model wrote it."""

    text: str
    finish_reason: str = "stop"


class Client:
    """Asks one model. Made, used and closed on one event loop."""

    def __init__(self, config: ModelConfig, base_url: str, cache: Cache | None = None, seed: int = 0) -> None:
        self.config = config
        self.url = base_url.rstrip("/")
        self._cache = cache
        self._base_seed = int(content_hash("sampling seed", seed), 16) % 2**30
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None
        self._one_at_a_time = False
        self._last_success = float("-inf")
        self._refusals = 0

    async def complete(
        self, messages: Sequence[Message], n: int = 1, start: int = 0, sampling: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
    ) -> list[Completion]:  # fmt: skip
        """Samples `start` to `start + n - 1` of the prompt, from the cache or from the server.

        Raises:
            DropRecord: the server refuses this request, and asking again would not help.
            ModelUnavailable: the server refuses every request.
        """
        meter = meter or Meter()
        request = {"model": self.config.model, "messages": list(messages), **self.config.sampling, **(sampling or {})}
        keys = [request_key({**request, "base_seed": self._base_seed}, index) for index in range(start, start + n)]
        # Equal requests in flight wait for one another: asked side by side they would get different answers of which
        # the cache keeps one, and a replay would no longer equal the run.
        lock = self._asking.setdefault(keys[0], asyncio.Lock())
        async with lock:
            found = self._recall(keys)
            meter.hits += n - found.count(None)
            while None in found:
                first = found.index(None)
                wanted = next((i for i in range(first, n) if found[i] is not None), n) - first
                # A server may return fewer choices than asked for; the rest is asked for again, by its own seeds.
                for offset, completion in enumerate(await self._ask(request, start + first, wanted, meter)):
                    found[first + offset] = completion
                    if self._cache is not None:
                        self._cache.put(keys[first + offset], json.dumps([completion.text, completion.finish_reason]))
        return [completion for completion in found if completion is not None]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _recall(self, keys: list[bytes]) -> list[Completion | None]:
        values = self._cache.get_many(keys) if self._cache is not None else [None] * len(keys)
        return [Completion(*json.loads(value)) if value is not None else None for value in values]

    async def _ask(self, request: dict[str, Any], index: int, n: int, meter: Meter) -> list[Completion]:
        """One to n completions, beginning at sample `index`; retries until the server gives in or we do."""
        began = time.monotonic()
        attempt = 0
        while True:
            count = 1 if self._one_at_a_time else min(n, self.config.max_n or n)
            body = {**request, "n": count} if count > 1 else dict(request)
            if self.config.send_seed:
                # Choice i of a request with seed s is sample s + i (vLLM's own convention), so that splitting a request
                # neither repeats samples nor changes them on a server that is deterministic by seed.
                body.setdefault("seed", self._base_seed + index)
            try:
                # The slot is given back before any pause: a sleeping request must not keep a ready one waiting.
                async with self._slots:
                    meter.requests += 1
                    meter.retries += attempt > 0
                    completions = await self._post(body, meter)
                self._last_success = time.monotonic()
                self._refusals = 0
                meter.completions += min(len(completions), n)
                return completions[:n]
            except _RefusesN:
                self._one_at_a_time = True
            except Retry as failure:
                attempt += 1
                self._give_up_if_hopeless(failure, attempt, began)
                pause = min(self.config.max_retry_wait, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(pause, min(failure.after or 0.0, 600.0)))

    def _give_up_if_hopeless(self, failure: Retry, attempt: int, began: float) -> None:
        never_answered = self._last_success == float("-inf")
        waited = time.monotonic() - began
        if never_answered and failure.reason.startswith("cannot connect") and waited >= self.config.connect_patience:
            raise ModelUnavailable(
                f"{self.config.model} at {self._shown_url()}: {failure.reason}; is the server running?"
            )
        if attempt <= self.config.max_retries:
            return
        if self._last_success < began:
            raise ModelUnavailable(
                f"{self.config.model} at {self._shown_url()}: {failure.reason}; "
                f"no request has succeeded for {waited:.0f} s. What is finished is kept: run again to continue"
            )
        raise DropRecord("request_failed", f"{failure.reason}, {attempt} attempts")

    async def _post(self, body: dict[str, Any], meter: Meter) -> list[Completion]:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=self.config.timeout, connect=None, sock_connect=10)
            self._session = aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0))
        try:
            async with self._session.post(
                f"{self.url}/chat/completions", json=body, headers=self._headers()
            ) as response:
                raw = await response.read()
                if response.status != 200:
                    self._raise_for(response.status, response.headers.get("Retry-After"), raw, body)
        except aiohttp.ClientConnectorError as error:
            raise Retry(f"cannot connect ({error.strerror or error})") from error
        except TimeoutError as error:
            raise Retry(f"no answer within {self.config.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"connection lost ({type(error).__name__})") from error
        return self._read(raw, meter)

    def _headers(self) -> dict[str, str]:
        secret = self.config.secret()
        return {"Authorization": f"Bearer {secret}"} if secret else {}

    def _read(self, raw: bytes, meter: Meter) -> list[Completion]:
        try:
            answer = json.loads(raw)
            choices = answer["choices"]
            # A choice's `index` says which sample it is; servers that omit it list them in order.
            ordered = sorted(choices, key=lambda choice: choice.get("index", 0))
            completions = [
                # UTF-8 cannot hold a lone surrogate, JSON can: what a file could not take is replaced here, once.
                Completion(
                    (choice["message"].get("content") or "").encode("utf-8", "replace").decode(),
                    choice.get("finish_reason") or "stop",
                )
                for choice in ordered
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Retry(f"unreadable answer ({type(error).__name__})") from error
        if not completions:
            raise Retry("an answer without choices")
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        meter.prompt_tokens += tokens[0]
        meter.completion_tokens += tokens[1]
        price = self.config.price
        meter.cost += (tokens[0] * price.get("input", 0.0) + tokens[1] * price.get("output", 0.0)) / 1e6
        return completions

    def _raise_for(self, status: int, retry_after: str | None, raw: bytes, body: Mapping[str, Any]) -> None:
        said = self._said(raw)
        if status in _RETRY_STATUS or status >= 500:
            raise Retry(f"HTTP {status}" + (f": {said}" if said else ""), _seconds(retry_after))
        if status in _REFUSED_STATUS:
            if body.get("n", 1) > 1 and re.search(r"\bn\b|n_choices|choices|\bn_?parallel\b|slots", said):
                raise _RefusesN("n refused")
            self._refusals += 1
            if self._last_success == float("-inf") and self._refusals >= _DEAD_AFTER_REFUSALS:
                raise ModelUnavailable(f"{self._shown_url()} refuses every request: HTTP {status}: {said}")
            raise DropRecord("request_refused", f"HTTP {status}: {said}")
        advice = {
            401: "check the key in the environment variable that the model's api_key names",
            403: "the key may not use this model",
            404: f"is '{self.config.model}' the name that the server uses, and does base_url end in /v1?",
        }.get(status, "check base_url and the account")
        raise ModelUnavailable(f"{self._shown_url()} answers HTTP {status}: {said or 'no reason given'}; {advice}")

    def _said(self, raw: bytes) -> str:
        """The server's own words, short, with the key blotted out should it quote it."""
        try:
            answer = json.loads(raw)
            error = answer.get("error", answer)
            said = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError, RecursionError):
            said = raw.decode("utf-8", "replace")
        secret = self.config.secret()
        return " ".join((said.replace(secret, "***") if secret else said).split())[:300]

    def _shown_url(self) -> str:
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _RefusesN(Retry):
    """The server takes one choice a request only (llama.cpp beyond its slots, several cloud endpoints)."""


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds; its form as a date is left to our own back-off."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None
