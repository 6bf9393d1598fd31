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
| nobody listens, or what answers is no model server     | ModelUnavailable | after `connect_patience` seconds, if no |
| (a web page, other JSON, no HTTP)                      |                  | request has succeeded yet; else Retry   |
| one of several servers would refuse all                | ModelUnavailable | the others are asked                    |
| a request with `response_format` is refused, or fails  |                  | asked without it: was it about that?    |
| no request has succeeded while one was tried and tried | ModelUnavailable | what is finished is kept                |
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .accounting import Meter
from .answers import Completion, NoModel, kept, recalled
from .cache import Cache, request_keys
from .endpoint import Busy, Endpoint, Lost, Unreachable
from .endpoints import Endpoints
from .errors import DropRecord, ModelUnavailable, Retry
from .hedging import first_answer
from .limits import ServerHealth
from .models import ModelConfig
from .records import compact_json, content_hash
from .serving import Served

log = logging.getLogger(__name__)

Message = dict[str, str]
_DEAD_AFTER = 16  # refusals of a step that has had no completion; failures with no success between
_LONGEST_RETRY_AFTER = 600.0
_BUSY_PAUSES = 3  # after so many refusals the pauses do not grow, while others are served: 2 s
_NEVER = float("-inf")
_HEDGE_FROM = 20  # answers of a step before "usual" means anything, and requests for each that is asked twice


class Client:
    """Asks one model. Made, used and closed on one event loop."""

    def __init__(
        self, config: ModelConfig, base_url: str | Sequence[str], cache: Cache | None = None, seed: int = 0,
        admit: Callable[[], None] | None = None, served: Served | None = None, batches: Path | None = None,
    ) -> None:  # fmt: skip
        """`admit` is called before each request that is sent, and may raise to stop it. `served` is the server if the
        run has started it; then `base_url` is left empty. `batches` is where it is noted what `mode: batch` sent."""
        self.config = config
        self._servers = Endpoints(config, [base_url] if isinstance(base_url, str) else base_url, batches)
        self._served = served
        self._admit = admit
        self._cache = cache
        self._base_seed = int(content_hash("sampling seed", seed), 16) % 2**30
        self._asking: dict[bytes, asyncio.Event] = {}
        self._meter = Meter()
        self._knows_n = False  # the server has given several choices at once
        self._one_at_a_time = False
        self._knows_format: bool | None = None  # whether the server takes `response_format`; None: not tried yet
        self._proven = False  # it has answered, in this run or in one that the cache remembers
        self._last_success = _NEVER
        self._failed = 0  # requests that were given up since
        self._refused: Counter[int] = Counter()  # by step, that is by the id() of its meter

    @property
    def url(self) -> str:
        return self._servers.name

    async def complete(
        self, messages: Sequence[Message], n: int = 1, start: int = 0, sampling: Mapping[str, Any] | None = None,
        meter: Meter | None = None, priority: int = 0, step: str = "",
    ) -> list[Completion]:  # fmt: skip
        """Samples `start` to `start + n - 1` of the prompt, from the cache or from the server.

        When slots are short, the request with the lowest `priority` is sent first. `step` is who asks, for the cache.

        Raises:
            DropRecord: the server refuses this request, and asking again would not help.
            ModelUnavailable: the server refuses every request.
        """
        meter = meter or self._meter
        request = {"model": self.config.model, "messages": list(messages), **self.config.sampling, **(sampling or {})}
        keys = request_keys({**request, "base_seed": self._base_seed}, start, n)
        # Equal samples in flight wait for one another: asked side by side they would get different answers of which
        # the cache keeps one, and a replay would no longer equal the run.
        while (others := next(filter(None, map(self._asking.get, keys)), None)) is not None:
            await others.wait()
        ours = asyncio.Event()
        self._asking.update(dict.fromkeys(keys, ours))
        try:
            return await self._complete(request, keys, start, meter, priority, step)
        finally:
            for key in keys:
                del self._asking[key]
            ours.set()

    async def _complete(
        self, request: dict[str, Any], keys: list[bytes], start: int, meter: Meter, priority: int, step: str
    ) -> list[Completion]:
        found = self._recall(keys, step)
        hits = len(keys) - found.count(None)
        meter.hits += hits
        self._proven |= hits > 0
        most = self.config.max_n or len(keys)
        while missing := [place for place, completion in enumerate(found) if completion is None]:
            spans = _spans(missing, 1 if self._one_at_a_time else most)
            asked = [self._ask(request, start + first, count, meter, priority) for first, count in spans]
            # All are waited for, even if one fails: what was paid for is kept.
            answers = await asyncio.gather(*asked, return_exceptions=True) if spans[1:] else [await asked[0]]
            for (first, _), answer in zip(spans, answers, strict=True):
                for place, completion in answer.items() if isinstance(answer, dict) else ():
                    found[first + place] = completion
                    self._keep(keys[first + place], completion, step)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            most = 1  # what the server left out is asked for singly, side by side
        return [completion for completion in found if completion is not None]

    def health(self) -> list[ServerHealth]:
        """How its servers are, as any thread may ask."""
        return [endpoint.health() for endpoint in self._servers.all]

    def stop(self) -> None:
        """Nothing new will be sent: who sleeps before another attempt, or for a rate limit, ends as Unfinished."""
        self._servers.stop()

    async def close(self) -> None:
        await self._servers.close()

    def _recall(self, keys: list[bytes], step: str) -> list[Completion | None]:
        values = self._cache.get_many(keys, step) if self._cache is not None else [None] * len(keys)
        return [recalled(value) for value in values]

    def _keep(self, key: bytes, completion: Completion, step: str) -> None:
        if self._cache is not None:
            self._cache.put(key, kept(completion), step)

    async def _ask(
        self, request: dict[str, Any], index: int, count: int, meter: Meter, priority: int
    ) -> dict[int, Completion]:
        """At least one and at most `count` completions, by their distance from sample `index`."""
        body = dict(request)
        if self.config.send_seed:
            # Choice i of a request with seed s is sample s + i (vLLM's own convention), so that splitting a request
            # neither repeats samples nor changes them on a server that is deterministic by seed.
            body["seed"] = body.get("seed", self._base_seed) + index
        if count > 1:
            body["n"] = count
        if self._knows_format is False:
            body.pop("response_format", None)
        began = time.monotonic()
        failures = deque([began], maxlen=self.config.max_retries // 2 + 1)
        attempt, n_refused, avoid = 0, False, None
        while True:
            start = await self._started() if self._served is not None else 0
            try:
                completions = await self._send(body, count, meter, priority, avoid, again=attempt > 0)
            except DropRecord as refusal:
                if self._leave_format_out(body):
                    continue  # what does the server say to the same without it?
                if count == 1:
                    self._stop_if_all_are_refused(refusal, meter)
                    raise
                count, n_refused = 1, True  # in any wording: what does the server say to the same without `n`?
                del body["n"]
                if self._knows_format is None and "response_format" in request:
                    body["response_format"] = request["response_format"]
            except _Failed as failed:
                if self._served is not None and await self._went_down(start, failed.failure):
                    continue  # that was no attempt
                failure, avoid = failed.failure, failed.endpoint
                attempt += 1
                self._give_up_if_hopeless(failure, attempt, began, failures[0])
                failures.append(time.monotonic())
                if attempt > 1 and not isinstance(failure, Busy):
                    self._leave_format_out(body)  # some servers break on a schema instead of refusing it
                # Where there is another server, no pause is needed the first time.
                if attempt > 1 or not self._servers.alternative(avoid):
                    attempt = await self._paused(failure, attempt, failures[0])
            else:
                break
        self._proven, self._last_success, self._failed = True, time.monotonic(), 0
        self._learn_format(request, body)
        self._knows_n |= len(completions) > 1
        self._one_at_a_time |= n_refused or (count > 1 and not self._knows_n)
        meter.completions += len(completions)
        return completions

    async def _started(self) -> int:
        """Waits for the server that the run starts; gives how many times it has been started."""
        assert self._served is not None
        state = await self._served.ready(self._servers.sleep)
        self._servers.all[0].url = state.url
        return state.start

    async def _went_down(self, start: int, failure: Retry) -> bool:
        assert self._served is not None
        return await self._served.gone_since(start, isinstance(failure, (Unreachable, Lost)), self._servers.sleep)

    def _leave_format_out(self, body: dict[str, Any]) -> bool:
        """Takes `response_format` out of a request, unless the server has shown that it knows it."""
        return not self._knows_format and body.pop("response_format", None) is not None

    def _learn_format(self, request: dict[str, Any], body: dict[str, Any]) -> None:
        if "response_format" in request and self._knows_format is None:
            self._knows_format = "response_format" in body
            if not self._knows_format:
                log.warning("%s does not take response_format: it is asked without", self.url)

    async def _send(
        self, body: dict[str, Any], count: int, meter: Meter, priority: int, avoid: Endpoint | None, again: bool
    ) -> dict[int, Completion]:
        # The slot is given back before any pause: a sleeping request must not keep a ready one waiting.
        endpoint = await self._servers.take(priority, avoid)
        try:
            self._count(meter)
            meter.retries += again
            patience = self._patience(meter)
            if patience is None:
                return await self._post(endpoint, body, count, meter)
            first = asyncio.ensure_future(self._post(endpoint, body, count, meter))
            try:
                await asyncio.wait({first}, timeout=patience)
                if first.done():
                    return first.result()
                return await first_answer(first, self._second(endpoint, body, count, meter))
            finally:
                first.cancel()
        finally:
            self._servers.give_back(endpoint)

    def _count(self, meter: Meter) -> None:
        if self._admit is not None:
            self._admit()
        meter.requests += 1

    def _patience(self, meter: Meter) -> float | None:
        """Seconds until a request is asked a second time; None if it shall not be."""
        factor = self.config.hedge
        if factor is None or meter.hedges * _HEDGE_FROM >= meter.requests or meter.latency.total() < _HEDGE_FROM:
            return None
        return factor * meter.quantile(0.95)

    async def _second(self, first: Endpoint, body: dict[str, Any], count: int, meter: Meter) -> dict[int, Completion]:
        endpoint = await self._servers.take(-1, avoid=first)
        try:
            self._count(meter)
            meter.hedges += 1
            return await self._post(endpoint, body, count, meter)
        finally:
            self._servers.give_back(endpoint)

    def _stop_if_all_are_refused(self, refusal: DropRecord, meter: Meter) -> None:
        self._refused[id(meter)] += 1
        if not meter.completions and not meter.hits and self._refused[id(meter)] >= _DEAD_AFTER:
            raise ModelUnavailable(
                f"{self.config.model} at {self.url} refuses every request of a step: {refusal.detail}"
            ) from refusal

    def _give_up_if_hopeless(self, failure: Retry, attempt: int, began: float, lately: float) -> None:
        """Raises if another attempt makes no sense. `lately` is when the later half of the attempts began.

        Whose fault it is shows in what became of the others lately: if any succeeded, it is the request's; if none
        did, the server's, except that the last request of a run has no others to compare with.
        """
        now = time.monotonic()
        never = self._last_success == _NEVER
        where = f"{self.config.model} at {self.url}: {failure.reason}"
        if never and isinstance(failure, (Unreachable, NoModel)):
            if now - began >= self.config.connect_patience:
                raise ModelUnavailable(f"{where}; {failure.advice}")
            return
        if attempt <= self.config.max_retries:
            return
        others_succeed = self._last_success >= lately
        if isinstance(failure, Busy) and others_succeed:
            return  # our turn will come
        if others_succeed or (self._proven and not isinstance(failure, Busy) and self._failed < _DEAD_AFTER):
            self._failed += 1
            raise DropRecord("request_failed", f"{failure.reason}, {attempt} attempts")
        raise ModelUnavailable(
            f"{where}; no request has succeeded for {now - (began if never else self._last_success):.0f} s. "
            "What is finished is kept: run again to continue"
        )

    async def _paused(self, failure: Retry, attempt: int, lately: float) -> int:
        """Waits, and gives the number of attempts that count from now on."""
        adapting = type(failure) is Busy and self.config.adaptive and self._last_success >= lately
        # Others are served: how hard to ask is the limit's affair, and who sleeps long leaves its slots empty.
        pause = self._pause(failure, min(attempt, _BUSY_PAUSES) if adapting else attempt)
        if failure.after:
            await self._servers.sleep(pause)
        elif await self._servers.pause(pause):
            return 1  # that nobody listened was no fault of the request
        return attempt

    def _pause(self, failure: Retry, attempt: int) -> float:
        pause = min(self.config.max_retry_wait, 0.25 * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)
        # A little later than the server asked for: not all at the very same moment.
        return max(pause, min(failure.after or 0.0, _LONGEST_RETRY_AFTER) * random.uniform(1.0, 1.1))

    async def _post(self, endpoint: Endpoint, body: dict[str, Any], count: int, meter: Meter) -> dict[int, Completion]:
        payload = compact_json(body)
        # Four bytes of text are about a token; what answers take is known from those before.
        tokens = len(payload) / 4 + count * meter.completion_tokens / max(1, meter.completions)
        began = time.monotonic()
        meter.in_flight += 1
        try:
            answer = await self._servers.post(endpoint, payload, count, tokens, self._proven)
        except Retry as failure:
            raise _Failed(failure, endpoint) from failure
        except ModelUnavailable as error:
            if not self._servers.alternative(endpoint):
                raise
            log.warning("going on without it: %s", error)
            raise _Failed(Retry(str(error)), endpoint) from error
        finally:
            meter.in_flight -= 1
        meter.answered(time.monotonic() - began)
        price = self.config.price
        meter.prompt_tokens += answer.prompt_tokens
        meter.completion_tokens += answer.completion_tokens
        meter.cost += answer.prompt_tokens * price.get("input", 0.0) / 1e6
        meter.cost += answer.completion_tokens * price.get("output", 0.0) / 1e6
        return dict(answer.completions)


class _Failed(Exception):
    """An attempt failed in a way that may pass, at this server."""

    def __init__(self, failure: Retry, endpoint: Endpoint) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.endpoint = endpoint


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
