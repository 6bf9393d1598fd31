"""The model client against real servers on loopback that behave as servers do: in every way but the documented one."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from autoif_blocks.accounting import Meter
from autoif_blocks.answers import seconds_to_wait
from autoif_blocks.cache import Cache
from autoif_blocks.client import Client, Completion
from autoif_blocks.errors import DropRecord, ModelUnavailable
from autoif_blocks.models import ModelConfig
from autoif_blocks.teacher import TeacherConfig, running

Body = dict[str, Any]
PROMPT = [{"role": "user", "content": "hello"}]


def prompt(text: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(text)}]


class Server:
    """Answers by `script(body, number of the request)`; knows what came and how much of it at a time."""

    def __init__(self, script: Callable[[Body, int], Any], delay: float = 0.0) -> None:
        self.script = script
        self.delay = delay
        self.bodies: list[Body] = []
        self.headers: list[Any] = []
        self.times: list[float] = []
        self.now = self.peak = 0
        self.port = 0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body, number = json.loads(await request.read()), len(self.bodies)
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.times.append(time.monotonic())
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await asyncio.sleep(self.delay)
            reply = self.script(body, number)
            reply = await reply if isinstance(reply, Awaitable) else reply
            if isinstance(reply, Callable):  # type: ignore[arg-type]
                return await reply(request)
            if isinstance(reply, int):
                return web.json_response({"error": {"message": "as the test wishes"}}, status=reply)
            if isinstance(reply, (bytes, str)):
                return web.Response(body=reply, content_type="application/json")
            return reply if isinstance(reply, web.StreamResponse) else web.json_response(reply)
        finally:
            self.now -= 1

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Server]:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def says(*texts: object, **more: Any) -> Body:
    choices = [{"index": i, "message": {"role": "assistant", "content": text}} for i, text in enumerate(texts)]
    return {"choices": choices, **more}


def samples(body: Body, count: int | None = None) -> list[str]:
    """What a server that is deterministic by seed makes of a request: choice i is sample seed + i."""
    return [str(body.get("seed", 0) % 1000 + i) for i in range(count or body.get("n", 1))]


QUICK = ModelConfig("http://127.0.0.1:1/v1", "m", max_retry_wait=0.01, connect_patience=0.3, timeout=5)


def talk(
    script: Callable[[Body, int], Any] | Server,
    use: Callable[[Client, Server], Awaitable[Any]],
    cache: Cache | None = None,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Runs `use` with a client of a server that follows the script."""

    async def main() -> Any:
        async with (script if isinstance(script, Server) else Server(script)).up() as server:
            client = Client(replace(QUICK, base_url=server.url, **options), server.url, cache, seed)
            try:
                return await use(client, server)
            finally:
                await client.close()
                assert asyncio.all_tasks() - {asyncio.current_task()} == set() or server.now == 0

    return asyncio.run(main())


def texts(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    opened = Cache(tmp_path)
    yield opened
    opened.close()


# n, and how servers treat it


def refusing(status: int, words: str) -> Callable[[Body, int], Any]:
    def script(body: Body, number: int) -> Any:
        if body.get("n", 1) > 1:
            return web.json_response({"error": {"message": words}}, status=status)
        return says(*samples(body))

    return script


def shaped(change: Callable[[list[Body]], list[Body]]) -> Callable[[Body, int], Any]:
    return lambda body, number: {"choices": change(says(*samples(body))["choices"])}


HABITS = {
    "honoured": (lambda body, number: says(*samples(body)), 1),
    "ignored": (lambda body, number: says(*samples(body, 1)), 5),
    "half of them": (lambda body, number: says(*samples(body, max(1, body.get("n", 1) // 2))), 4),
    "more than asked": (lambda body, number: says(*samples(body, 9)), 1),
    "llama.cpp": (refusing(400, "n must be less than or equal to the number of slots (n_parallel)"), 6),
    "not supported": (refusing(400, "n > 1 is not supported"), 6),
    "one choice": (refusing(400, "Only one completion choice is allowed"), 6),
    "pydantic": (refusing(422, "[{'loc': ['body', 'n'], 'msg': 'Input should be 1'}]"), 6),
    "another language": (refusing(400, "参数错误"), 6),
    "out of order": (shaped(lambda choices: choices[::-1]), 1),
    "no index": (shaped(lambda choices: [{"message": choice["message"]} for choice in choices]), 1),
    "index null": (shaped(lambda choices: [{**choice, "index": None} for choice in choices]), 1),
    "index always 0": (shaped(lambda choices: [{**choice, "index": 0} for choice in choices]), 1),
    "index from 1": (shaped(lambda choices: [{**c, "index": c["index"] + 1} for c in choices[::-1]]), 1),
    "index a word": (shaped(lambda choices: [{**choice, "index": "a"} for choice in choices]), 1),
    "one left out": (shaped(lambda choices: choices[:2] + choices[3:] or choices), 2),
    "one misshapen": (shaped(lambda choices: [choices[0], {"index": 1}, *choices[2:]] if choices[1:] else choices), 2),
    "one null": (shaped(lambda choices: [choices[0], None, *choices[2:]] if choices[1:] else choices), 2),
}


@pytest.mark.parametrize("habit", HABITS)
def test_five_samples_are_the_same_five_whatever_the_server_does_with_n(habit: str) -> None:
    script, requests = HABITS[habit]
    meter = Meter()

    async def use(client: Client, server: Server) -> None:
        found = texts(await client.complete(PROMPT, 5, meter=meter))
        first = server.bodies[0]["seed"] % 1000
        assert found == [str(first + i) for i in range(5)]
        assert len(server.bodies) == meter.requests == requests
        assert (meter.completions, meter.retries) == (5, 0)

    talk(script, use)


@pytest.mark.parametrize(("habit", "per_prompt"), [("ignored", 3), ("not supported", 3), ("half of them", 2)])
def test_a_habit_is_learnt_once(habit: str, per_prompt: int) -> None:
    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("first"), 3)
        before = len(server.bodies)
        await client.complete(prompt("second"), 3)
        assert len(server.bodies) - before == per_prompt + (habit == "half of them")

    talk(HABITS[habit][0], use)


def test_a_refusal_that_is_not_about_n_does_not_unlearn_it() -> None:
    def script(body: Body, number: int) -> Any:
        return 400 if "long" in body["messages"][0]["content"] else says(*samples(body))

    async def use(client: Client, server: Server) -> None:
        with pytest.raises(DropRecord):
            await client.complete(prompt("too long"), 3)
        before = len(server.bodies)
        await client.complete(prompt("short"), 3)
        assert (before, len(server.bodies)) == (2, 3)

    talk(script, use)


def test_singles_are_asked_side_by_side() -> None:
    server = Server(lambda body, number: says(*samples(body)), delay=0.05)
    talk(server, lambda client, _: client.complete(PROMPT, 8), max_n=1)
    assert server.peak == 8


# What a choice holds


@pytest.mark.parametrize(
    ("choice", "text", "reason"),
    [
        ({"message": {"content": "yes"}, "finish_reason": "stop"}, "yes", "stop"),
        ({"message": {"content": "cut"}, "finish_reason": "length"}, "cut", "length"),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, "", "content_filter"),
        ({"message": {}, "finish_reason": None}, "", "stop"),
        ({"message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}}, "", "stop"),
        ({"message": {"content": "8", "reasoning_content": "let me think"}}, "8", "stop"),
        ({"message": {"content": None, "reasoning": "thought to the end"}, "finish_reason": "length"}, "", "length"),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}, "ab", "stop"),
        ({"message": {"content": [{"type": "thinking", "thinking": []}, {"text": "c"}, None, 5]}}, "c", "stop"),
        ({"message": {"content": 5}}, "", "stop"),
        ({"message": {"content": "x", "role": 7}, "finish_reason": {"type": "stop"}}, "x", "{'type': 'stop'}"),
        ({"message": {"content": "\ud83d and \ude00"}}, "? and ?", "stop"),
        ({"message": {"content": "\U0001f600\x00\u2028"}}, "\U0001f600\x00\u2028", "stop"),
    ],
)
def test_a_choice_is_read_as_far_as_it_goes(choice: Body, text: str, reason: str, cache: Cache) -> None:
    async def use(client: Client, server: Server) -> None:
        asked = await client.complete(PROMPT)
        assert asked == [Completion(text, reason)]
        assert await client.complete(PROMPT) == asked
        assert len(server.bodies) == 1

    talk(lambda body, number: json.dumps({"choices": [choice]}), use, cache)


def test_an_answer_of_many_megabytes_is_an_answer() -> None:
    (completion,) = talk(lambda body, number: says("x" * 20_000_000), lambda client, _: client.complete(PROMPT))
    assert len(completion.text) == 20_000_000


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 20}, (10, 20)),
        ({"prompt_tokens": "10", "completion_tokens": 2.0}, (10, 2)),
        (None, (0, 0)),
        ("much", (0, 0)),
        ([1], (0, 0)),
        ({"prompt_tokens": None}, (0, 0)),
        ({"prompt_tokens": "ten", "completion_tokens": -5}, (0, 0)),
        ({"prompt_tokens": {}, "completion_tokens": float("inf")}, (0, 0)),
        ({"prompt_tokens": float("nan"), "completion_tokens": 7}, (0, 7)),
    ],
)
def test_usage_is_counted_as_far_as_it_makes_sense(usage: Any, counted: tuple[int, int]) -> None:
    meter = Meter()
    talk(
        lambda body, number: json.dumps(says("x", usage=usage)),
        lambda client, _: client.complete(PROMPT, meter=meter),
        price={"input": 2.0, "output": 5.0},
    )
    assert (meter.prompt_tokens, meter.completion_tokens) == counted
    assert meter.cost == pytest.approx((counted[0] * 2 + counted[1] * 5) / 1e6)


# What passes: asked again


async def _half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def _half_chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def _hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _hang_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"choices": [')
    return await _hang(request)


PASSING: dict[str, Any] = {
    "cut off": json.dumps(says("good"))[:-5],
    "HTML": "<html><body>Bad gateway</body></html>",
    "empty": b"",
    "invalid UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe\xfa"}}]}',
    "10,000 deep": "[" * 10_000 + "]" * 10_000,
    "10,000 deep object": '{"choices":' * 10_000 + "0" + "}" * 10_000,
    "too many digits": "1" * 5_000,
    "an error with 200": {"error": {"message": "upstream is busy", "code": 502}},
    "no choices": says(),
    "choices null": {"choices": None},
    "choices an object": {"choices": {"0": "x"}},
    "choices of words": {"choices": ["x"]},
    "no message": {"choices": [{"index": 0}]},
    "message null": {"choices": [{"message": None}]},
    "array": [1],
    "word": '"x"',
    "null": "null",
    **{f"HTTP {status}": status for status in (408, 409, 425, 429, 500, 501, 502, 503, 504, 524, 529)},
    "HTTP 500 in HTML": lambda r: _respond(web.Response(status=500, text="<h1>oops</h1>" * 10_000)),
    "half a body": _half,
    "half a chunked body": _half_chunked,
    "hangs up": _hang_up,
    "hangs": _hang,
    "hangs in the middle": _hang_in_the_middle,
    "not gzip": lambda r: _respond(web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})),
}


async def _respond(response: web.Response) -> web.Response:
    return response


@pytest.mark.parametrize("trouble", PASSING)
def test_what_may_pass_is_asked_again(trouble: str, cache: Cache) -> None:
    meter = Meter()

    async def use(client: Client, server: Server) -> None:
        assert texts(await client.complete(PROMPT, meter=meter)) == ["good"]
        assert server.bodies[0] == server.bodies[1]
        assert (len(server.bodies), meter.requests, meter.retries, meter.completions) == (2, 2, 1, 1)
        assert texts(await client.complete(PROMPT, meter=meter)) == ["good"]
        assert len(server.bodies) == 2

    talk(lambda body, number: says("good") if number else PASSING[trouble], use, cache, timeout=0.3)


def test_gzip_is_unpacked() -> None:
    async def reply(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(json.dumps(says("ok")).encode()), headers={"Content-Encoding": "gzip"})

    assert texts(talk(lambda body, number: reply, lambda client, _: client.complete(PROMPT))) == ["ok"]


def test_retry_after_is_obeyed() -> None:
    async def reply(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "0.4"})

    server = Server(lambda body, number: says("ok") if number else reply)
    talk(server, lambda client, _: client.complete(PROMPT))
    assert 0.4 <= server.times[1] - server.times[0] < 0.8


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (None, 0, 0), ("", 0, 0), ("3", 3, 3), ("0.5", 0.5, 0.5), ("-1", 0, 0), ("soon", 0, 0), ("nan", 0, 0),
        (timedelta(hours=1), 3_500, 3_600), (timedelta(hours=-1), 0, 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0, 0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str | timedelta | None, low: float, high: float) -> None:
    if isinstance(header, timedelta):
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    assert low <= seconds_to_wait(header) <= high


def test_a_sleeping_request_holds_no_slot() -> None:
    async def later(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "0.5"})

    def script(body: Body, number: int) -> Any:
        return later if number == 0 else says(body["messages"][0]["content"])

    async def use(client: Client, server: Server) -> None:
        sleeper = asyncio.create_task(client.complete(prompt("sleeper")))
        await asyncio.sleep(0.1)
        assert [texts(await client.complete(prompt(i))) for i in range(5)] == [[str(i)] for i in range(5)]
        assert not sleeper.done()
        assert texts(await sleeper) == ["sleeper"]

    talk(script, use, max_concurrency=1)


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    server = Server(lambda body, number: 500 if number % 3 == 0 else says("ok"), delay=0.01)

    async def use(client: Client, _: Server) -> None:
        await asyncio.gather(*(client.complete(prompt(i)) for i in range(40)))

    talk(server, use, max_concurrency=4)
    assert server.peak == 4
    assert len(server.bodies) > 40


# What does not pass: the run stops


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "environment variable"),
        (402, "account"),
        (403, "may not use this model"),
        (404, "does base_url end in /v1"),
        (405, "base_url"),
        (418, "base_url"),
        (302, "http://elsewhere/"),
        (308, "http://elsewhere/"),
        (204, "base_url"),
    ],
)
def test_what_would_fail_for_all_stops_the_run(
    status: int, advice: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)

    async def reply(request: web.Request) -> web.Response:
        words = {"error": {"message": f"no, not with {request.headers['Authorization']}"}}
        return web.json_response(words, status=status, headers={"Location": "http://elsewhere/"})

    async def use(client: Client, server: Server) -> None:
        with pytest.raises(ModelUnavailable) as caught:
            await client.complete(PROMPT)
        said = str(caught.value)
        assert f"HTTP {status}" in said
        assert advice in said
        assert status == 204 or "no, not with Bearer ***" in said
        assert len(server.bodies) == 1
        assert "sk-very-secret" not in said + repr(caught.value) + repr(client) + repr(client.config) + caplog.text

    talk(lambda body, number: reply, use, api_key="${TEST_KEY}")


def test_the_key_is_sent_and_a_line_break_behind_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-1\n")
    server = Server(lambda body, number: says("ok"))
    talk(server, lambda client, _: client.complete(PROMPT), api_key="${TEST_KEY}")
    assert server.headers[0]["Authorization"] == "Bearer sk-1"


def test_a_key_that_no_header_can_hold_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-1\nsk-2")
    with pytest.raises(ModelUnavailable, match=r"TEST_KEY.* line break") as caught:
        talk(lambda body, number: says("ok"), lambda client, _: client.complete(PROMPT), api_key="${TEST_KEY}")
    assert "sk-" not in str(caught.value)


def test_nobody_listening_is_found_out_soon() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"

        async def main() -> None:
            client = Client(replace(QUICK, base_url=url), url)
            try:
                await client.complete(PROMPT)
            finally:
                await client.close()

        began = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"cannot connect .*; is the server running\?"):
            asyncio.run(main())
        assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.parametrize("trouble", [500, 503, '{"error": "busy"}', '{"choices": [{"mess'])
def test_a_server_that_never_does_its_work_stops_the_run(trouble: Any) -> None:
    server = Server(lambda body, number: trouble)
    with pytest.raises(ModelUnavailable, match="no request has succeeded"):
        talk(server, lambda client, _: client.complete(PROMPT), max_retries=2)
    assert len(server.bodies) == 3


def test_a_server_that_dies_and_comes_back_loses_nothing() -> None:
    async def main() -> None:
        server = Server(lambda body, number: says(body["messages"][0]["content"]))
        async with server.up():
            client = Client(replace(QUICK, base_url=server.url, max_retries=60), server.url)
            await client.complete(prompt("before"))
        asked = [asyncio.create_task(client.complete(prompt(i))) for i in range(20)]
        await asyncio.sleep(0.4)  # longer than connect_patience: that is for servers that were never there
        assert not any(task.done() for task in asked)
        async with server.up():
            assert [texts(found) for found in await asyncio.gather(*asked)] == [[str(i)] for i in range(20)]
        await client.close()

    asyncio.run(main())


def test_a_server_that_dies_for_good_stops_the_run_and_drops_nothing() -> None:
    async def main() -> None:
        server = Server(lambda body, number: says("ok"))
        async with server.up():
            client = Client(replace(QUICK, base_url=server.url, max_retries=3), server.url)
            await client.complete(prompt("before"))
        outcomes = await asyncio.gather(*(client.complete(prompt(i)) for i in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ModelUnavailable}
        assert "run again to continue" in str(outcomes[0])
        await client.close()

    asyncio.run(main())


# What is wrong with one request: its record goes


def test_a_refused_request_drops_its_record_with_the_server_s_words() -> None:
    words = "This model's maximum context length is 4096 tokens"

    def script(body: Body, number: int) -> Any:
        if body["messages"][0]["content"] == "long":
            return web.json_response({"object": "error", "message": words}, status=400)
        return says("ok")

    async def use(client: Client, server: Server) -> None:
        with pytest.raises(DropRecord) as caught:
            await client.complete(prompt("long"))
        assert (caught.value.reason, caught.value.detail) == ("request_refused", f"HTTP 400: {words}")
        assert texts(await client.complete(prompt("short"))) == ["ok"]

    talk(script, use)


def refusals(client: Client, count: int, meter: Meter) -> Awaitable[list[Any]]:
    return asyncio.gather(*(client.complete(prompt(i), meter=meter) for i in range(count)), return_exceptions=True)


def test_a_step_whose_every_request_is_refused_stops_the_run() -> None:
    def script(body: Body, number: int) -> Any:
        return 400 if "temperature" in body else says("ok")

    async def use(client: Client, server: Server) -> None:
        await client.complete(PROMPT, meter=Meter())  # another step fares well
        meter = Meter()
        asked = (client.complete(prompt(i), sampling={"temperature": 9}, meter=meter) for i in range(20))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds.count(DropRecord) == 15
        assert kinds.count(ModelUnavailable) == 5

    talk(script, use)


def test_a_resumed_run_whose_rest_is_refused_goes_on(cache: Cache) -> None:
    async def once(client: Client, server: Server) -> None:
        await client.complete(prompt("good"))

    async def again(client: Client, server: Server) -> None:
        meter = Meter()
        await client.complete(prompt("good"), meter=meter)
        outcomes = await refusals(client, 30, meter)
        assert {type(outcome) for outcome in outcomes} == {DropRecord}

    talk(lambda body, number: says("ok"), once, cache)
    talk(lambda body, number: 400, again, cache)


def test_a_403_where_others_succeed_is_about_the_prompt() -> None:
    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("first"))
        with pytest.raises(DropRecord):
            await client.complete(prompt("flagged"))

    talk(lambda body, number: 403 if number else says("ok"), use)


@asynccontextmanager
async def while_others_succeed(client: Client) -> AsyncIterator[None]:
    async def others() -> None:
        for i in itertools.count():
            await client.complete(prompt(i))

    task = asyncio.create_task(others())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_request_that_always_fails_while_others_succeed_costs_its_record() -> None:
    def script(body: Body, number: int) -> Any:
        return 500 if body["messages"][0]["content"] == "poison" else says("ok")

    async def use(client: Client, server: Server) -> None:
        async with while_others_succeed(client):
            with pytest.raises(DropRecord) as caught:
                await client.complete(prompt("poison"))
        assert caught.value.reason == "request_failed"
        assert "HTTP 500: as the test wishes" in caught.value.detail

    talk(script, use, max_retries=3)


def test_the_last_request_of_a_resumed_run_may_fail_for_ever(cache: Cache) -> None:
    """Otherwise one poisoned prompt would keep a run from ever ending."""

    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("good"))
        with pytest.raises(DropRecord):
            await client.complete(prompt("poison"))

    talk(lambda body, number: 500 if "poison" in str(body) else says("ok"), use, cache, max_retries=2)
    talk(lambda body, number: 500, use, cache, max_retries=2)


def test_a_server_that_fails_for_all_in_the_middle_of_a_run_stops_it() -> None:
    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("good"))
        outcomes = await refusals(client, 30, Meter())
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds.count(DropRecord) == 16
        assert kinds.count(ModelUnavailable) == 14

    talk(lambda body, number: 500 if number else says("ok"), use, max_retries=2)


def test_a_busy_server_never_costs_a_record() -> None:
    """However often it says 429, if it serves others: pitfall 14."""

    def script(body: Body, number: int) -> Any:
        unlucky = [other for other in server.bodies if other["messages"] == prompt("unlucky")]
        return 429 if body["messages"] == prompt("unlucky") and len(unlucky) < 25 else says("ok")

    async def use(client: Client, _: Server) -> None:
        async with while_others_succeed(client):
            assert texts(await client.complete(prompt("unlucky"))) == ["ok"]

    server = Server(script)
    talk(server, use, max_retries=3)


# Seeds


def test_every_sample_has_its_seed_however_requests_are_split() -> None:
    async def use(client: Client, server: Server) -> list[str]:
        return texts(await client.complete(PROMPT, 8))

    whole, split = Server(HABITS["honoured"][0]), Server(HABITS["honoured"][0])
    assert talk(whole, use) == talk(split, use, max_n=3)
    base = whole.bodies[0]["seed"]
    assert sorted((body["seed"] - base, body.get("n", 1)) for body in split.bodies) == [(0, 3), (3, 3), (6, 2)]


def test_seeds_follow_the_run_s_seed_and_the_step_s_own() -> None:
    server = Server(lambda body, number: says("x"))

    async def use(client: Client, _: Server) -> None:
        await client.complete(prompt("a"), start=2)
        await client.complete(prompt("b"), start=2, sampling={"seed": 100})

    talk(server, use)
    talk(server, use, seed=1)
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[1] == seeds[3] == 102
    assert seeds[0] != seeds[2]


def test_no_seed_is_sent_if_none_shall_be() -> None:
    server = Server(lambda body, number: says("x"))
    talk(server, lambda client, _: client.complete(PROMPT, sampling={"top_p": 0.5}), send_seed=False)
    assert server.bodies == [{"model": "m", "messages": PROMPT, "top_p": 0.5}]


# Sharing


@pytest.mark.parametrize(
    "asked",
    [[(0, 4)] * 5, [(0, 4), (2, 4), (4, 2)], [(3, 1), (2, 1), (1, 1), (0, 4)], [(0, 2), (1, 2), (2, 2), (0, 4)]],
)
def test_equal_samples_in_flight_are_asked_once(asked: list[tuple[int, int]], cache: Cache) -> None:
    count = iter(range(100))
    server = Server(lambda body, number: says(*(next(count) for _ in range(body.get("n", 1)))), delay=0.02)
    meter = Meter()

    async def use(client: Client, _: Server) -> None:
        spans = await asyncio.gather(*(client.complete(PROMPT, n, start, meter=meter) for start, n in asked))
        known: dict[int, str] = {}
        for (start, _n), found in zip(asked, spans, strict=True):
            for index, completion in enumerate(found, start):
                assert known.setdefault(index, completion.text) == completion.text
        assert meter.completions == len(known)
        assert meter.hits == sum(n for _, n in asked) - len(known)

    talk(server, use, cache)


def test_what_was_paid_for_is_kept_though_a_part_fails(cache: Cache) -> None:
    async def use(client: Client, server: Server) -> None:
        with pytest.raises(DropRecord):
            await client.complete(PROMPT, 4)
        meter = Meter()
        server.script = lambda body, number: says("late")
        assert texts(await client.complete(PROMPT, 4, meter=meter)) == ["ok", "ok", "late", "ok"]
        assert (meter.hits, meter.requests) == (3, 1)

    def script(body: Body, number: int) -> Any:
        return 400 if body["seed"] == max(other["seed"] for other in server.bodies[:3]) and number == 2 else says("ok")

    server = Server(script)
    talk(server, use, cache, max_n=1)


def test_a_cancelled_request_leaves_its_slot_and_its_lock(cache: Cache) -> None:
    async def use(client: Client, server: Server) -> None:
        task = asyncio.create_task(client.complete(PROMPT, 2))
        await asyncio.sleep(0.05)
        assert server.now == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await asyncio.sleep(0.05)
        assert server.now == 0
        assert texts(await asyncio.wait_for(client.complete(PROMPT, 2), 2)) == ["ok", "ok"]

    talk(lambda body, number: says("ok", "ok") if number else _hang, use, cache, max_concurrency=1)


def test_a_client_that_was_never_used_closes() -> None:
    asyncio.run(Client(QUICK, "http://127.0.0.1:1/v1").close())


# The configuration


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "localhost:8000"}, "must be like http://"),
        ({"base_url": "http://"}, "must be like http://"),
        ({"base_url": "ftp://host/v1"}, "must be like http://"),
        ({"base_url": "http://user:s3cret@host/v1"}, "must not hold a user"),
        ({"base_url": "https://host/v1?key=s3cret"}, "must not hold a user"),
        ({"api_key": "s3cret"}, "must name an environment variable"),
        ({"max_concurrency": 0}, "max_concurrency must be above 0"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"max_retry_wait": -1}, "max_retry_wait must be above 0"),
        ({"max_n": 0}, "max_n must be at least 1"),
        ({"price": {"in": 1}}, "price has 'input' and 'output', not 'in'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: Body, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        replace(QUICK, **options)
    assert "s3cret" not in str(caught.value)


# All together


def test_the_teacher_s_faults_change_no_completion(tmp_path: Path) -> None:
    calm = TeacherConfig(models=())
    rough = replace(
        calm, error_500_rate=0.05, error_429_rate=0.1, retry_after=0.05, hang_rate=0.02, disconnect_rate=0.05,
        fewer_choices_rate=0.2, max_slots=8,
    )  # fmt: skip

    async def answers(config: TeacherConfig, cache: Cache | None) -> list[list[Completion]]:
        async with running(config) as url:
            client = Client(replace(QUICK, base_url=url, timeout=1, max_concurrency=16), url, cache)
            found = await asyncio.gather(*(client.complete(prompt(f"Tell me about {i}."), 4) for i in range(80)))
            await client.close()
            return list(found)

    cache = Cache(tmp_path)
    assert asyncio.run(answers(calm, None)) == asyncio.run(answers(rough, cache))
    cache.close()
