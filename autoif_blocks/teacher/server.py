"""The simulated teacher's HTTP side: an OpenAI-compatible server on loopback, with faults and latency on demand.

What it answers is decided in `replies` and depends on the messages, the model's name and the effective seed alone.
How long it takes depends on the request's body and on how often that came before, so that two runs wait for the same.
Whether a fault comes first depends on the order in which requests arrive and never on what they say; a fault never
changes a completion. One request body meets a fault at its first two tries at most.

The effective seed of choice `i` is the request's `seed` plus `i`, as in vLLM: one request for n=8 and two for n=4 with
`seed` and `seed + 4` bring the same eight choices. Without `seed` it is 0. Temperature 0 honours the seed all the same.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from aiohttp import web

from .batches import BatchDesk, add_batches
from .chance import Rates, digest
from .config import Fault, TeacherConfig, fault_rates
from .replies import complete

Json = Mapping[str, object]

FAULTY_TRIES = 2
REMEMBERED_BODIES = 50_000
MAX_BODY = 32 * 1024**2
MAX_CHOICES = 1_024


def service_time(config: TeacherConfig, body: bytes, tries: int = 0) -> float:
    """Seconds until a request is answered that has come `tries` times before."""
    if not config.latency:
        return 0.0
    rng = Random(
        digest("latency", str(config.seed), str(tries)) ^ int.from_bytes(blake2b(body, digest_size=8).digest())
    )
    # The mean of a lognormal is exp(mu + sigma^2 / 2).
    return rng.lognormvariate(math.log(config.latency) - config.latency_sigma**2 / 2, config.latency_sigma)


class _Refused(Exception):
    """A request that gets an error object instead of an answer."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        kind = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": kind.get(status, "invalid_request_error"),
                "param": param,
                "code": code,
            }
        }


@dataclass(frozen=True)
class _Ask:
    """A chat request that makes sense."""

    text: str
    model: str
    n: int
    seed: int
    max_tokens: int | None


class _Teacher:
    """The state of one server: its configuration, what arrived, and who waits."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self.rates = Rates(
            config.malformed_rate, config.hostile_rate, config.wrong_rate, config.wrong_output_rate,
            config.misread_rate, config.vacuous_rate,
        )  # fmt: skip
        self.slots = asyncio.Semaphore(config.max_slots) if config.max_slots else None
        self.arrivals = 0
        self.taken = 0
        self._tries: OrderedDict[bytes, int] = OrderedDict()
        self._faulty = any(rate for _, rate in fault_rates(config))

    def fate(self, body: bytes) -> tuple[float, Fault | None]:
        """Seconds to wait and the fault to show for the request that arrives now."""
        self.arrivals += 1
        if not (self._faulty or self.config.latency):
            return 0.0, None
        key = blake2b(body, digest_size=8).digest()
        tries = self._tries.pop(key, 0)
        self._tries[key] = tries + 1
        if len(self._tries) > REMEMBERED_BODIES:
            self._tries.popitem(last=False)
        rng = Random(digest("fate", str(self.config.seed), str(self.arrivals)))
        return service_time(self.config, body, tries), self._fault(rng.random(), tries)

    def _fault(self, roll: float, tries: int) -> Fault | None:
        if tries >= FAULTY_TRIES:
            return None
        for name, rate in fault_rates(self.config):
            if roll < rate:
                return name
            roll -= rate
        return None

    @contextmanager
    def room(self) -> Iterator[None]:
        """A place among the requests that the server has taken; a 429 if there is none."""
        if self.config.capacity is not None and self.taken >= self.config.capacity:
            raise _Refused(429, f"Too many requests: {self.taken} are being answered.", "rate_limit_exceeded")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def check_key(self, request: web.Request) -> None:
        key = self.config.api_key
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            raise _Refused(401, "Incorrect API key provided.", "invalid_api_key")

    def read(self, body: bytes) -> _Ask:
        """The request, or the reason to refuse it."""
        try:
            data = json.loads(body)
        except ValueError as error:
            raise _Refused(400, f"The body is not valid JSON: {error}", "invalid_json") from None
        if not isinstance(data, dict):
            raise _Refused(400, "The body must be a JSON object.", "invalid_json")
        model = data.get("model")
        if not isinstance(model, str) or not model:
            raise _Refused(400, "You must provide a model parameter.", "missing_required_parameter", "model")
        if self.config.models and model not in self.config.models:
            raise _Refused(404, f"The model `{model}` does not exist.", "model_not_found", "model")
        if data.get("stream"):
            raise _Refused(400, "Streaming is not supported by this server.", "unsupported_value", "stream")
        n = _whole(data, "n", 1, low=1, high=self.config.max_n or MAX_CHOICES)
        tokens = "max_completion_tokens" if data.get("max_completion_tokens") is not None else "max_tokens"
        limit = _whole(data, tokens, 0, low=1, high=10**9) if data.get(tokens) is not None else None
        seed = _whole(data, "seed", 0, low=-(2**63), high=2**63)
        return _Ask(_text(data.get("messages")), model, n, seed, limit)

    def answer_line(self, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request in a batch."""
        try:
            return 200, self.answer(self.read(body), None)
        except _Refused as refused:
            return refused.status, refused.body

    def answer(self, ask: _Ask, fault: Fault | None) -> Json:
        """The whole response object."""
        wanted = 1 if self.config.ignore_n else ask.n
        if fault == "fewer_choices":
            wanted = max(1, wanted // 2)
        choices, written = [], 0
        for index in range(wanted):
            content = complete(ask.text, ask.model, ask.seed + index, self.rates)
            reason = "stop"
            if ask.max_tokens is not None and len(content) > ask.max_tokens * 4:
                content, reason = content[: ask.max_tokens * 4], "length"
            written += _tokens(content)
            message = {"role": "assistant", "content": content}
            choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
        read = _tokens(ask.text)
        return {
            "id": f"chatcmpl-{digest(ask.text, ask.model, str(ask.seed)):016x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": ask.model,
            "choices": choices,
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }


def _whole(data: Json, name: str, default: int, *, low: int, high: int) -> int:
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _Refused(400, f"{name} must be a whole number from {low} to {high}.", "invalid_value", name)
    return value


def _text(messages: object) -> str:
    """The conversation as one text, system messages included."""
    if not isinstance(messages, list) or not messages:
        raise _Refused(400, "messages must be a list that is not empty.", "missing_required_parameter", "messages")
    parts = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not isinstance(message.get("role"), str):
            raise _Refused(400, "Each message needs a role and a content.", "invalid_type", "messages")
        parts.append(content)
    return "\n\n".join(parts)


def _tokens(text: str) -> int:
    return (len(text) + 3) // 4


_TEACHER = web.AppKey("teacher", _Teacher)


def _json_response(data: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    # ASCII only: a lone surrogate then travels as an escape, as it does from real servers.
    body = json.dumps(data).encode("ascii")
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _completions(request: web.Request) -> web.StreamResponse:
    teacher = request.app[_TEACHER]
    body = await request.read()
    try:
        teacher.check_key(request)
        ask = teacher.read(body)
        wait, fault = teacher.fate(body)
        if fault == "error_429":
            raise _Refused(429, "Rate limit reached.", "rate_limit_exceeded")
        with teacher.room():
            async with teacher.slots or nullcontext():
                await asyncio.sleep(wait)
            if fault == "error_500":
                raise _Refused(500, "The server had an error while processing your request.", "internal_error")
            if fault == "hang":
                await asyncio.Event().wait()
            answer = teacher.answer(ask, fault)
    except _Refused as refused:
        headers = {"Retry-After": f"{teacher.config.retry_after:g}"} if refused.status == 429 else None
        return _json_response(refused.body, refused.status, headers)
    return await _half(request, answer) if fault == "disconnect" else _json_response(answer)


async def _half(request: web.Request, answer: Json) -> web.StreamResponse:
    """Promise the whole answer, send half of it, and hang up."""
    body = json.dumps(answer).encode("ascii")
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _refusal(request: web.Request) -> web.Response | None:
    try:
        request.app[_TEACHER].check_key(request)
    except _Refused as refused:
        return _json_response(refused.body, refused.status)
    return None


async def _models(request: web.Request) -> web.Response:
    if (refusal := _refusal(request)) is not None:
        return refusal
    teacher = request.app[_TEACHER]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "autoif"} for name in teacher.config.models]
    return _json_response({"object": "list", "data": data})


def make_app(config: TeacherConfig) -> web.Application:
    """The server as an aiohttp application, for a runner of your own."""
    app = web.Application(client_max_size=MAX_BODY)
    app[_TEACHER] = _Teacher(config)
    app.router.add_post("/v1/chat/completions", _completions)
    app.router.add_get("/v1/models", _models)
    add_batches(app, BatchDesk(app[_TEACHER].answer_line, config.batch_latency, config.batch_queue), _refusal)
    return app


@asynccontextmanager
async def running(config: TeacherConfig, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """A server that answers inside the `async with`; gives its base URL, which ends in `/v1`."""
    # Hanging requests end when their client does, and at the latest when the server stops.
    runner = web.AppRunner(make_app(config), access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        taken = runner.addresses[0][1]
        yield f"http://{host}:{taken}/v1"
    finally:
        await runner.cleanup()


async def serve(
    config: TeacherConfig,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], object] = lambda url: print(url, file=sys.stdout, flush=True),
) -> None:
    """Serve until cancelled. `on_ready` gets the base URL once requests are answered; port 0 takes a free one."""
    async with running(config, host, port) as url:
        on_ready(url)
        await asyncio.Event().wait()
