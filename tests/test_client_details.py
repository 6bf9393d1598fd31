"""The client's numbers: seeds that stay as they are, pauses, spans, and whose turn a second request is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from test_client import PROMPT, QUICK, Body, Server, _hang, prompt, says, talk, texts, while_others_succeed
from test_endpoints import SCHEMA, answered, ask, echo

from autoif_blocks.accounting import Meter
from autoif_blocks.answers import Completion, recalled
from autoif_blocks.client import Client, _spans
from autoif_blocks.errors import ModelUnavailable, Retry
from autoif_blocks.serving import Served, ServerState


@pytest.mark.parametrize(("seed", "sent"), [(0, 557267975), (1, 356534406), (4, 823540361)])
def test_the_seeds_that_are_sent_stay_as_they_are(seed: int, sent: int) -> None:
    """Caches of earlier runs hang on them; and servers take no more than 31 bits."""
    server = Server(lambda body, number: says("x"))
    talk(server, lambda client, _: client.complete(PROMPT, start=3), seed=seed)
    assert server.bodies[0]["seed"] == sent + 3
    assert Client(QUICK, server.url)._base_seed == 557267975


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None), ('["a","stop"]', Completion("a", "stop")), ('["a"]', None), ('["a","b","c"]', None), ("[]", None),
        ('[1,"stop"]', None), ('{"a":1}', None), ('"ab"', None), ("nope", None), ("[" * 100_000, None),
    ],
)  # fmt: skip
def test_what_a_cache_holds_is_a_completion_or_asked_again(value: str | None, found: Completion | None) -> None:
    assert recalled(value) == found


def test_what_a_request_will_take_is_guessed_from_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses: list[float] = []

    async def use(client: Client, _: Server) -> None:
        post = client._servers.post

        async def noted(endpoint: Any, payload: bytes, count: int, tokens: float, proven: bool) -> Any:
            guesses.append(tokens - len(payload) / 4)
            return await post(endpoint, payload, count, tokens, proven)

        monkeypatch.setattr(client._servers, "post", noted)
        meter = Meter()
        for text, n in (("first", 1), ("second", 3), ("third", 2)):
            await client.complete(prompt(text), n, meter=meter)

    script = lambda body, _: says(*["x"] * body.get("n", 1), usage={"completion_tokens": 20})  # noqa: E731
    talk(script, use)
    assert guesses == [0, 60, pytest.approx(2 * 40 / 4)]


@pytest.mark.parametrize(
    ("price", "cost"), [({}, 0), ({"input": 2}, 60), ({"output": 5}, 50), ({"input": 2.0, "output": 5.0}, 110)]
)
def test_what_has_no_price_costs_nothing(price: dict[str, float], cost: float) -> None:
    meter = Meter()
    script = lambda body, _: says("x", usage={"prompt_tokens": 30, "completion_tokens": 10})  # noqa: E731
    talk(script, lambda client, _: client.complete(PROMPT, meter=meter), price=price)
    assert meter.cost == pytest.approx(cost / 1e6, rel=1e-9)


@pytest.mark.parametrize(
    ("places", "most", "spans"),
    [
        ([], 3, []),
        ([4], 3, [(4, 1)]),
        ([0, 1, 2, 3], 3, [(0, 3), (3, 1)]),
        ([0, 2, 3, 7], 8, [(0, 1), (2, 2), (7, 1)]),
        ([5, 6, 7], 1, [(5, 1), (6, 1), (7, 1)]),
        (range(1000, 1008), 5, [(1000, 5), (1005, 3)]),
    ],
)
def test_spans_are_runs_of_consecutive_places(places: Any, most: int, spans: list[tuple[int, int]]) -> None:
    assert _spans(places, most) == spans


@pytest.mark.parametrize(("attempt", "after", "low", "high"), [
    (1, None, 0.25, 0.5), (2, None, 0.5, 1.0), (4, None, 2.0, 4.0), (9, None, 30.0, 60.0), (2_000, None, 30.0, 60.0),
    (1, 5.0, 5.0, 5.5), (9, 5.0, 30.0, 60.0), (1, 1e9, 600.0, 660.0),
])  # fmt: skip
def test_pauses_double_up_to_a_limit_and_differ(attempt: int, after: float | None, low: float, high: float) -> None:
    client = Client(replace(QUICK, max_retry_wait=60.0), QUICK.base_url)
    pauses = [client._pause(Retry("x", after), attempt) for _ in range(200)]
    assert low <= min(pauses) < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < max(pauses) <= high


@pytest.mark.parametrize(("status", "paused"), [(429, [1, 2, 3, 3, 3]), (500, [1, 2, 3, 4, 5])])
def test_who_is_refused_while_others_are_served_soon_asks_again(
    status: int, paused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []
    monkeypatch.setattr(Client, "_pause", lambda client, failure, attempt: attempts.append(attempt) or 0.01)

    def script(body: Body, number: int) -> Any:
        return status if body["messages"] == prompt("unlucky") and len(attempts) < 5 else says("ok")

    async def use(client: Client, _: Server) -> None:
        async with while_others_succeed(client):
            await asyncio.sleep(0.05)
            assert texts(await client.complete(prompt("unlucky"))) == ["ok"]

    talk(script, use)
    assert attempts == paused


def test_a_request_for_one_sample_tells_nothing_of_n() -> None:
    async def use(client: Client, server: Server) -> None:
        await client.complete(prompt("first"))
        await client.complete(prompt("second"), 5)
        assert [body.get("n", 1) for body in server.bodies] == [1, 5]

    talk(lambda body, number: says(*range(body.get("n", 1))), use)


@pytest.mark.parametrize(
    ("hedge", "answers", "hedges", "requests", "asked"),
    [
        (None, 40, 0, 40, False),
        (3.0, 19, 0, 40, False),  # too few to know what is usual
        (3.0, 20, 0, 20, True),
        (3.0, 40, 1, 20, False),  # one for twenty requests
        (3.0, 40, 1, 21, True),
        (3.0, 40, 5, 100, False),
        (3.0, 40, 5, 101, True),
    ],
)
def test_when_a_request_is_asked_twice(
    hedge: float | None, answers: int, hedges: int, requests: int, asked: bool
) -> None:
    meter = Meter(hedges=hedges, requests=requests)
    for _ in range(answers):
        meter.answered(0.5)
    patience = Client(replace(QUICK, hedge=hedge), QUICK.base_url)._patience(meter)
    assert patience == (pytest.approx(1.5, rel=0.2) if asked else None)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_failure_of_a_server_that_was_started_anew_is_no_attempt(restarted: bool, tmp_path: Path) -> None:
    path = tmp_path / "server.json"

    def script(body: Body, number: int) -> Any:
        if number == 0 and restarted:
            ServerState(start=2, url=server.url).write(path)
        return says("ok") if number else 500

    async def main() -> None:
        async with server.up():
            ServerState(start=1, url=server.url).write(path)
            client, meter = Client(QUICK, "", served=Served(path)), Meter()
            assert texts(await client.complete(PROMPT, meter=meter)) == ["ok"]
            assert (meter.requests, meter.retries) == (2, 0 if restarted else 1)
            await client.close()

    server = Server(script)
    asyncio.run(main())


def test_one_failure_does_not_cost_the_format() -> None:
    """A server that breaks on a schema breaks on it again."""

    async def use(client: Client, server: Server) -> None:
        await client.complete(PROMPT, sampling=SCHEMA)
        assert ["response_format" in body for body in server.bodies] == [True, True]

    talk(lambda body, number: says("{}") if number else 500, use)


def test_an_error_names_the_model_the_server_and_for_how_long() -> None:
    async def use(client: Client, server: Server) -> None:
        with pytest.raises(ModelUnavailable) as caught:
            await client.complete(PROMPT)
        assert str(caught.value).startswith(f"m at {server.url}: HTTP 500")
        assert "no request has succeeded for 0 s. What is finished is kept" in str(caught.value)

    talk(lambda body, number: 500, use, max_retries=2)


def stragglers(*slow: int) -> Server:
    """A server that never answers the first request of some prompts."""

    def script(body: Body, number: int) -> Any:
        mine = [other for other in server.bodies if other["messages"] == body["messages"]]
        return _hang if int(body["messages"][0]["content"]) in slow and len(mine) == 1 else echo(body, number)

    server = Server(script, delay=0.01)
    return server


@pytest.mark.parametrize("slow", [[60, 90], [59, 60, 61]])
def test_few_requests_are_asked_twice(slow: list[int]) -> None:
    server, meter = stragglers(*slow), Meter()
    assert len(answered(ask([server], 100, meter, max_concurrency=6, hedge=3.0, timeout=30))) == 100
    assert len(slow) <= meter.hedges <= 6
    assert (meter.requests, meter.completions) == (100 + meter.hedges, 100)


def test_a_second_request_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would else stand behind all that have not been asked once."""
    monkeypatch.setattr(Client, "_patience", lambda client, meter: 0.3)
    server = stragglers(30)
    ask([server], 300, max_concurrency=4, timeout=30)
    asked = [int(body["messages"][0]["content"]) for body in server.bodies]
    first, second = (place for place, number in enumerate(asked) if number == 30)
    assert second - first < 200


@pytest.mark.parametrize(
    ("first", "second", "requests"),
    [
        ((0.3, 500), (0.5, 200), 2),
        ((0.5, 200), (0.1, 500), 2),
        ((0.3, 500), (0.3, 500), 3),
    ],
)
def test_the_answer_of_two_is_the_first_good_one(
    first: tuple[float, int], second: tuple[float, int], requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "_patience", lambda client, meter: 0.1)

    async def script(body: Body, number: int) -> Any:
        seconds, status = [first, second, (0.0, 200)][min(number, 2)]
        await asyncio.sleep(seconds)
        return says("ok") if status == 200 else status

    async def use(client: Client, server: Server) -> None:
        assert texts(await client.complete(PROMPT)) == ["ok"]
        assert len(server.bodies) == requests

    talk(script, use)


@pytest.mark.parametrize(("served_during", "attempts"), [(1, 5), (2, 5), (3, 6), (4, 7)])
def test_others_count_who_were_served_during_the_later_half_of_the_attempts(served_during: int, attempts: int) -> None:
    async def use(client: Client, server: Server) -> int:
        asked = 0

        async def busy(request: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            if asked == served_during:
                await client.complete(prompt("other"))
            return web.Response(status=429)

        server.script = lambda body, _: says("ok") if body["messages"][0]["content"] == "other" else busy
        with pytest.raises(ModelUnavailable, match="no request has succeeded for"):
            await client.complete(prompt("mine"))
        return asked

    assert talk(lambda body, _: None, use, max_retries=4) == attempts
