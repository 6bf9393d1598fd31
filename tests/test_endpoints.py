"""Several servers, limits that adapt, limits of an account, second requests, formats that a server may not know."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from conftest import Bench, FakeModel
from test_client import QUICK, Body, Server, _hang, _hang_in_the_middle, _respond, prompt, says, talk, texts

from autoif_blocks.accounting import Meter
from autoif_blocks.answers import read_answer
from autoif_blocks.client import Client
from autoif_blocks.errors import DropRecord, ModelUnavailable, Unfinished
from autoif_blocks.limits import PROBE, AdaptiveLimit, RateLimit, Sleep, TimeLimit
from autoif_blocks.models import ModelConfig


def unused_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def ask(servers: list[Server | str], count: int, meter: Meter | None = None, **options: Any) -> list[Any]:
    """What became of so many prompts at several servers, all asked at once."""

    async def main() -> list[Any]:
        async with AsyncExitStack() as stack:
            urls = [s if isinstance(s, str) else (await stack.enter_async_context(s.up())).url for s in servers]
            client = Client(replace(QUICK, base_url=urls, **options), urls)
            try:
                asked = (client.complete(prompt(i), meter=meter) for i in range(count))
                return await asyncio.gather(*asked, return_exceptions=True)
            finally:
                await client.close()

    return asyncio.run(main())


def echo(body: Body, number: int) -> Any:
    return says(body["messages"][0]["content"])


def answered(outcomes: list[Any]) -> list[str]:
    return [outcome[0].text for outcome in outcomes]


# Several servers


def test_two_servers_share_the_work() -> None:
    one, two = Server(echo, delay=0.01), Server(echo, delay=0.01)
    assert answered(ask([one, two], 200, max_concurrency=8)) == [str(i) for i in range(200)]
    assert one.peak == two.peak == 4
    assert abs(len(one.bodies) - len(two.bodies)) < 40


def test_the_slower_server_gets_less() -> None:
    fast, slow = Server(echo, delay=0.01), Server(echo, delay=0.1)
    ask([fast, slow], 200, max_concurrency=8)
    assert len(fast.bodies) > 3 * len(slow.bodies)


@pytest.mark.parametrize("trouble", ["nobody listens", 500, 503, 401, 404, "<html>"])
def test_one_bad_server_of_two_costs_no_record(trouble: Any) -> None:
    good = Server(echo, delay=0.005)
    bad: Server | str = unused_url() if trouble == "nobody listens" else Server(lambda body, number: trouble)
    meter = Meter()
    assert answered(ask([bad, good], 300, meter, max_concurrency=8)) == [str(i) for i in range(300)]
    assert meter.retries < 100  # it was passed over after a few failures


def test_a_server_that_comes_back_is_asked_again() -> None:
    async def main() -> None:
        good, bad = Server(echo, delay=0.01), Server(lambda body, number: 500 if number < 5 else echo(body, number))
        async with good.up(), bad.up():
            client = Client(replace(QUICK, max_concurrency=4), [bad.url, good.url])
            end = time.monotonic() + 1.6
            while time.monotonic() < end:
                await asyncio.gather(*(client.complete(prompt(i)) for i in range(8)))
            await client.close()
        assert len(bad.bodies) > 20

    asyncio.run(main())


def test_who_waits_for_a_server_that_had_gone_goes_on_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double, and so would every outage: the last request of a run once slept for half a minute after one."""

    async def main() -> None:
        server = Server(echo)
        async with server.up():
            client = Client(replace(QUICK, max_concurrency=32), server.url)
            await client.complete(prompt("proof"))
        monkeypatch.setattr(Client, "_pause", lambda *_: 20.0)
        waiting = [asyncio.ensure_future(client.complete(prompt(i))) for i in range(32)]
        await asyncio.sleep(0.3)
        async with server.up():
            began = time.monotonic()
            await client.complete(prompt("the first to see it"))
            assert answered(await asyncio.gather(*waiting)) == [str(i) for i in range(32)]
            assert time.monotonic() - began < 10
        await client.close()
        assert server.peak > 20  # that nobody listened tells nothing of what the server can take

    asyncio.run(main())


def test_waiting_for_a_server_costs_no_attempts() -> None:
    """A request that has failed while nobody listened is not given up at its next bad luck."""

    async def main() -> None:
        server = Server(lambda body, number: 500 if "unlucky" in str(body) and number < 4 else echo(body, number))
        async with server.up():
            client = Client(replace(QUICK, max_retries=3, max_retry_wait=0.3), server.url)
            await client.complete(prompt("proof"))
        meter = Meter()
        waiting = asyncio.ensure_future(client.complete(prompt("unlucky"), meter=meter))
        try:
            while meter.requests < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with server.up():
                await client.complete(prompt("the first to see it"))
                assert (await waiting)[0].text == "unlucky"
        finally:
            waiting.cancel()
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(("trouble", "said"), [("nobody listens", "cannot connect"), (401, "401"), (404, "404")])
def test_no_good_server_stops_the_run(trouble: Any, said: str) -> None:
    servers = [unused_url() if trouble == "nobody listens" else Server(lambda b, n: trouble) for _ in range(2)]
    outcomes = ask(servers, 5)
    assert any(isinstance(outcome, ModelUnavailable) and said in str(outcome) for outcome in outcomes)
    assert not any(isinstance(outcome, (list, DropRecord)) for outcome in outcomes)


@pytest.mark.parametrize(
    ("base_url", "urls"),
    [
        ("http://a/v1/", ("http://a/v1",)),
        ("http://a/v1, http://b/v1", ("http://a/v1", "http://b/v1")),
        (["http://a/v1", "http://b/v1/", "http://a/v1"], ("http://a/v1", "http://b/v1")),
    ],
)
def test_addresses(base_url: Any, urls: tuple[str, ...]) -> None:
    assert ModelConfig(base_url, "m").base_urls == urls


@pytest.mark.parametrize("base_url", ["", " , ", [], ["http://a/v1", "simulated"], "http://a/v1,b:80"])
def test_addresses_that_are_none(base_url: Any) -> None:
    with pytest.raises(ValueError, match="base_url"):
        ModelConfig(base_url, "m")


# Which request goes first


def test_earlier_steps_go_first_when_slots_are_short() -> None:
    async def use(client: Client, server: Server) -> None:
        steps = [3, 1, 2, 1, 3, 2]
        await asyncio.gather(*(client.complete(prompt((step, i)), priority=step) for i, step in enumerate(steps)))
        order = [eval_step(body) for body in server.bodies]
        assert order == [3, 1, 1, 2, 2, 3]  # the first came when the slot was free

    def eval_step(body: Body) -> int:
        return int(body["messages"][0]["content"][1])

    talk(Server(lambda body, number: says("ok"), delay=0.01), use, max_concurrency=1)


def test_a_run_sends_earlier_steps_first(bench: Bench, model: FakeModel) -> None:
    steps = "".join(
        f"  - {{name: s{k}, block: respond, prompt: 's{k} {{{{ number }}}}', field: f{k}}}\n" for k in (1, 2)
    )
    bench.run(steps.replace("block: respond", "block: respond, n: 1"), [{"number": i} for i in range(150)])
    kinds = [text[:2] for text in model.prompts]
    assert sorted(kinds) == ["s1"] * 150 + ["s2"] * 150
    assert kinds.index("s2") > 60
    assert kinds[:150].count("s1") > 130


# Adaptive limits


def test_a_limit_starts_with_a_probe() -> None:
    limit = AdaptiveLimit(256)
    assert limit.now == PROBE
    limit.note(time.monotonic(), refused=False)
    assert limit.now == 256


def test_a_limit_halves_under_refusals_and_grows_by_steps() -> None:
    limit = AdaptiveLimit(100)
    limit.note(1.0, refused=False)
    for _ in range(30):
        limit.note(time.monotonic(), refused=True)
    halved = limit.now
    assert halved == 50
    limit.note(1.0, refused=True)  # sent before the change: no news
    grown = []
    for _ in range(30):
        for _ in range(100):
            limit.note(time.monotonic(), refused=False)
        grown.append(limit.now)
    assert grown[0] <= 60
    assert grown == sorted(grown)
    assert grown[-1] == 100


@pytest.mark.parametrize("refused", [0.0, 0.05, 0.1])
def test_a_few_refusals_do_not_slow_a_limit_down(refused: float) -> None:
    limit = AdaptiveLimit(64)
    for number in range(3_000):
        limit.note(time.monotonic(), refused=refused > 0 and number % round(1 / refused) == 1)
    assert limit.now == 64


@pytest.mark.parametrize("ceiling", [32, 10_000])
def test_however_high_the_ceiling_few_requests_are_refused_and_most_of_a_server_is_used(ceiling: int) -> None:
    limit, capacity = AdaptiveLimit(ceiling), 16
    sent: list[int] = []
    for _ in range(400):
        sent.append(limit.now)
        began = time.monotonic()
        for number in range(limit.now):
            limit.note(began, refused=number >= capacity)
    settled = sent[100:]
    assert sum(max(0, at_once - capacity) for at_once in settled) < 0.2 * sum(settled)
    assert sum(min(at_once, capacity) for at_once in settled) > 0.8 * capacity * len(settled)


def test_a_limit_is_soon_where_it_was_when_nobody_refuses_any_more() -> None:
    limit, rounds = AdaptiveLimit(1000), 0
    limit.note(time.monotonic(), refused=False)
    while limit.now > 1:
        limit.note(time.monotonic(), refused=True)
    while limit.now < 1000 and rounds < 100:
        rounds += 1
        began = time.monotonic()
        for _ in range(limit.now):
            limit.note(began, refused=False)
    assert rounds < 60


def test_never_below_one_and_never_above_the_ceiling() -> None:
    limit = AdaptiveLimit(3)
    for _ in range(200):
        limit.note(time.monotonic(), refused=True)
    assert limit.now == 1
    for _ in range(500):
        limit.note(time.monotonic(), refused=False)
    assert limit.now == 3


@pytest.mark.heavy
def test_a_client_finds_what_a_server_can_take() -> None:
    async def script(body: Body) -> Any:
        if server.now > 4:
            return 429
        await asyncio.sleep(0.02)
        return echo(body, 0)

    server = Server(lambda body, number: script(body))
    meter = Meter()
    outcomes = ask([server], 400, meter, max_concurrency=64)
    assert answered(outcomes) == [str(i) for i in range(400)]
    unbounded = Meter()
    server = Server(lambda body, number: script(body))
    ask([server], 400, unbounded, max_concurrency=64, adaptive=False)
    assert meter.retries < unbounded.retries / 2


# An account's limits


async def _times(limit: RateLimit, amounts: list[float]) -> list[float]:
    times = []
    for amount in amounts:
        await limit.take(amount)
        times.append(time.monotonic())
    return times


@pytest.mark.parametrize("amounts", [[1.0] * 25, [5.0, 1.0, 9.0, 3.0, 2.0, 10.0, 1.0, 4.0], [30.0, 1.0, 30.0]])
def test_no_window_holds_more_than_the_limit(amounts: list[float]) -> None:
    times = asyncio.run(_times(RateLimit(10, Sleep(), period=0.2), amounts))
    for index, start in enumerate(times):
        window = [a for t, a in zip(times[index:], amounts[index:], strict=True) if t < start + 0.199]
        assert sum(window) <= 10 or len(window) == 1
    assert times[-1] - times[0] < 0.2 * (sum(amounts) / 5 + 2)


def test_a_correction_makes_room_or_takes_it() -> None:
    async def main() -> float:
        limit = RateLimit(10, Sleep(), period=0.3)
        entry = await limit.take(10)
        limit.correct(entry, 1)
        began = time.monotonic()
        await limit.take(9)
        assert time.monotonic() - began < 0.1
        await limit.take(5)
        limit.correct(entry, 99)  # long gone from the window
        return time.monotonic() - began

    assert 0.2 < asyncio.run(main()) < 0.6


def test_requests_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoif_blocks.limits.PERIOD", 0.3)
    server = Server(echo)
    assert len(answered(ask([server], 25, rpm=10))) == 25
    assert all(late - early > 0.25 for early, late in zip(server.times, server.times[10:], strict=False))


def test_tokens_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoif_blocks.limits.PERIOD", 0.3)
    began = time.monotonic()
    usage = {"usage": {"prompt_tokens": 50, "completion_tokens": 50}}
    ask([Server(lambda body, number: {**says("ok"), **usage})], 12, Meter(), tpm=400, max_concurrency=1)
    assert 0.6 < time.monotonic() - began < 3


# Second requests


def test_a_straggler_is_asked_twice() -> None:
    async def slow(request: Any) -> Any:
        return await _hang(request)

    def script(body: Body, number: int) -> Any:
        mine = [other for other in server.bodies if other["messages"] == body["messages"]]
        return slow if body["messages"][0]["content"] == "39" and len(mine) == 1 else echo(body, number)

    server, meter = Server(script, delay=0.01), Meter()
    began = time.monotonic()
    assert answered(ask([server], 40, meter, max_concurrency=4, hedge=3.0, timeout=30)) == [str(i) for i in range(40)]
    assert time.monotonic() - began < 5
    assert (meter.hedges, meter.requests, meter.completions) == (1, 41, 40)


def test_no_request_is_asked_twice_unless_told() -> None:
    def script(body: Body, number: int) -> Any:
        return slow() if number == 39 else echo(body, number)

    async def slow() -> Any:
        await asyncio.sleep(0.5)
        return says("late")

    meter = Meter()
    ask([Server(script, delay=0.005)], 40, meter, max_concurrency=4)
    assert (meter.hedges, meter.requests) == (0, 40)


async def _slowly(request: web.Request) -> web.StreamResponse:
    """An answer that begins late, and comes in pieces."""
    await asyncio.sleep(0.4)
    response = web.StreamResponse()
    await response.prepare(request)
    for piece in (b'{"choices": [{"message"', b': {"content": ', b'"slow"}}]}'):
        await response.write(piece)
        await asyncio.sleep(0.2)
    return response


@pytest.mark.parametrize(
    ("trouble", "limits", "retried"),
    [
        (_hang, {"first_byte_timeout": 0.2}, 1),
        (_hang_in_the_middle, {"read_timeout": 0.2}, 1),
        (_hang_in_the_middle, {"first_byte_timeout": 0.5, "read_timeout": 0.2}, 1),
        (_slowly, {"first_byte_timeout": 0.2}, 1),
        (_slowly, {"read_timeout": 0.1}, 1),
        (_slowly, {"first_byte_timeout": 0.6, "read_timeout": 0.35}, 0),  # each counts for itself
        (_slowly, {"timeout": 0.6}, 1),
    ],
)
def test_silence_is_noticed_before_the_whole_time_is_over(trouble: Any, limits: Body, retried: int) -> None:
    def script(body: Body, number: int) -> Any:
        return trouble if number == 0 else echo(body, number)

    began, meter = time.monotonic(), Meter()
    told = answered(ask([Server(script)], 1, meter, **{"timeout": 30, **limits}))
    assert (told, meter.retries) == (["0"] if retried else ["slow"], retried)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("trouble", "options"),
    [
        (lambda r: _respond(web.Response(status=429, headers={"Retry-After": "60"})), {}),
        (500, {"max_retry_wait": 60.0}),
        (None, {"rpm": 1}),
        (None, {"tpm": 1}),
    ],
)
def test_who_sleeps_is_woken_when_nothing_more_shall_be_sent(trouble: Any, options: Body) -> None:
    """The first request is answered; the second waits: for another attempt, or for its turn."""

    async def use(client: Client, server: Server) -> list[Any]:
        await client.complete(prompt("first"))
        second = [asyncio.ensure_future(client.complete(prompt(i))) for i in range(3)]
        await asyncio.sleep(0.3)
        began = time.monotonic()
        client.stop()
        outcomes = await asyncio.gather(*second, return_exceptions=True)
        assert time.monotonic() - began < 1
        return outcomes

    script = lambda body, number: echo(body, number) if number == 0 or trouble is None else trouble  # noqa: E731
    assert [type(outcome) for outcome in talk(script, use, **{"connect_patience": 60, **options})] == [Unfinished] * 3


# Formats


SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}}}


@pytest.mark.parametrize("takes_n", [True, False])
@pytest.mark.parametrize("takes_format", [True, False])
@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_knows_no_format_is_asked_without(takes_n: bool, takes_format: bool, status: int) -> None:
    def script(body: Body, number: int) -> Any:
        if "response_format" in body and not takes_format:
            return status
        if body.get("n", 1) > 1 and not takes_n:
            return 400
        return says(*[f"{body['seed'] % 100 + i}" for i in range(body.get("n", 1))])

    async def use(client: Client, server: Server) -> None:
        for text in ("a", "b"):
            assert len(set(texts(await client.complete(prompt(text), 3, sampling=SCHEMA)))) == 3
        learnt = len(server.bodies)
        await client.complete(prompt("c"), 3, sampling=SCHEMA)
        later = server.bodies[learnt:]
        assert len(later) == (1 if takes_n else 3)
        assert all(("response_format" in body) == takes_format for body in later)

    talk(script, use)


def test_a_refusal_by_a_server_that_knows_the_format_is_about_the_request() -> None:
    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("good"), sampling=SCHEMA)
        with pytest.raises(DropRecord):
            await client.complete(prompt("bad"), sampling=SCHEMA)
        assert all("response_format" in body for body in server.bodies)

    talk(lambda body, number: 400 if "bad" in str(body["messages"]) else says("{}"), use)


def test_a_step_s_schema_is_sent(bench: Bench, model: FakeModel) -> None:
    schema = "{type: object, properties: {a: {type: string}}, required: [a]}"
    steps = f"  - {{name: r, block: respond, prompt: 'say {{{{ q }}}}', json_schema: {schema}}}\n"
    bench.run(steps, [{"q": "x"}])
    sent = model.bodies[0]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"]["required"] == ["a"]


# Counts


@pytest.mark.parametrize(
    ("texts_of", "told", "counted"),
    [(["w" * 400] * 4, 100, 400), (["w" * 400] * 4, 400, 400), (["w" * 400], 10, 10), (["", ""], 0, 0)],
)
def test_usage_of_one_choice_is_usage_of_all(texts_of: list[str], told: int, counted: int) -> None:
    body = {**says(*texts_of), "usage": {"prompt_tokens": 1, "completion_tokens": told}}
    assert read_answer(json.dumps(body).encode(), len(texts_of)).completion_tokens == counted


def test_usage_of_one_choice_shows_in_llama_cpp_s_timings() -> None:
    body = {**says("{ }", "[ ]"), "usage": {"completion_tokens": 3}, "timings": {"predicted_n": 3}}
    assert read_answer(json.dumps(body).encode(), 2).completion_tokens == 6
    body["usage"] = {"completion_tokens": 7}
    assert read_answer(json.dumps(body).encode(), 2).completion_tokens == 7


def test_latencies_are_counted_by_quantile() -> None:
    meter = Meter()
    for milliseconds in range(1, 1001):
        meter.answered(milliseconds / 1e3)
    copy = Meter.from_dict(json.loads(json.dumps(meter.to_dict())))
    assert copy == meter
    copy.add(Meter())
    for share in (0.1, 0.5, 0.9, 0.99):
        assert copy.quantile(share) == pytest.approx(share, rel=0.12)
    assert Meter().quantile(0.5) == 0.0


@pytest.mark.parametrize(
    ("block", "option", "kept", "noted"),
    [
        ("respond", "", ["b"], {"cut_off": 1}),
        ("respond", ", on_length: keep", ["a", "b"], {}),
        ("back_translate", "", ["b"], {"cut_off": 1}),
    ],
)
def test_what_was_cut_off_is_left_out(bench: Bench, block: str, option: str, kept: list[str], noted: Any) -> None:
    def script(body: Body, number: int) -> Any:
        reply = says("a", "b")
        reply["choices"][0]["finish_reason"] = "length"
        return reply

    async def serve() -> None:
        async with Server(script).up() as server:
            bench.model.url = server.url
            fed: dict[str, Any] = {"functions": ["f"], "q": "x"}
            prompt_text = "say {{ function }}" if block == "back_translate" else "say {{ q }}"
            steps = f"  - {{name: r, block: {block}, n: 2, prompt: '{prompt_text}'{option}}}\n"
            found = await asyncio.to_thread(bench.run, steps, [fed])
            got = [row["response"] for row in found] if block == "respond" else found[0]["back_translations"]
            assert sorted(got) == kept
            assert bench.step("r")["discarded"] == noted

    asyncio.run(serve())


def test_all_cut_off_is_a_reason_to_drop(bench: Bench) -> None:
    def script(body: Body, number: int) -> Any:
        reply = says("a")
        reply["choices"][0]["finish_reason"] = "length"
        return reply

    async def serve() -> None:
        async with Server(script).up() as server:
            bench.model.url = server.url
            steps = "  - {name: r, block: respond, reask: 1, prompt: 'say {{ q }}'}\n"
            assert await asyncio.to_thread(bench.run, steps, [{"q": "x"}]) == []
            assert bench.step("r")["dropped"] == {"cut_off": 1}
            assert len(server.bodies) == 2
            assert bench.step("r")["p50"] > 0

    asyncio.run(serve())


# The time that a request may take


def test_each_has_its_own_time_though_one_timer_serves_all() -> None:
    async def main() -> None:
        limit = TimeLimit(0.2)
        ended: dict[str, float] = {}

        async def work(name: str, begins: float, takes: float) -> None:
            await asyncio.sleep(begins)
            began = time.monotonic()
            try:
                with limit:
                    await asyncio.sleep(takes)
            finally:
                ended[name] = time.monotonic() - began

        async with asyncio.TaskGroup() as group:
            group.create_task(work("quick", 0.0, 0.05))
            late = group.create_task(work("later, within its time", 0.1, 0.15))
            outcomes = await asyncio.gather(work("slow", 0.0, 9), work("slow, later", 0.1, 9), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]
        assert late.exception() is None
        assert ended["quick"] < 0.2
        assert all(0.18 < ended[name] < 0.5 for name in ("slow", "slow, later"))
        limit.close()

    asyncio.run(main())


def test_who_is_cancelled_has_not_run_out_of_time() -> None:
    async def main() -> None:
        limit = TimeLimit(0.1)

        async def work() -> None:
            with limit:
                await asyncio.sleep(9)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):  # the limit still works, and leaves the task as it was
            await work()
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    asyncio.run(main())
