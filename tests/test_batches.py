"""`mode: batch`: requests by the file, answers by the file, and nothing paid twice when a run ends in between."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import AUTOIF, SMALL, tree
from running import teacher
from test_client import prompt, says

from autoif_blocks.accounting import Meter
from autoif_blocks.cache import Cache
from autoif_blocks.client import Client
from autoif_blocks.errors import DropRecord, ModelUnavailable, Unfinished
from autoif_blocks.models import ModelConfig
from autoif_blocks.teacher.batches import BatchDesk, add_batches

BATCH = ModelConfig(
    "http://127.0.0.1:1/v1", "m", mode="batch", batch_wait=0.05, batch_poll=0.02, max_retry_wait=0.05,
    connect_patience=0.3,
)  # fmt: skip


def echo(body: bytes) -> tuple[int, dict[str, Any]]:
    text = json.loads(body)["messages"][0]["content"]
    return (400, {"error": {"message": "too long"}}) if text == "long" else (200, says(text))


class Vendor:
    """A server that takes batches; `spoil` may answer a request in the server's stead."""

    def __init__(self, desk: BatchDesk | None) -> None:
        self.desk = desk
        self.spoil: Callable[[web.Request], Awaitable[web.Response | None] | web.Response | None] = lambda request: None
        self.seen: list[str] = []
        self.url = ""

    @web.middleware
    async def _watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path.removeprefix('/v1')}")
        spoiled = self.spoil(request)
        if isinstance(spoiled, Awaitable):
            spoiled = await spoiled
        response: web.StreamResponse = spoiled if spoiled is not None else await handler(request)
        return response

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Vendor]:
        app = web.Application(middlewares=[self._watch], client_max_size=2**26)
        if self.desk is not None:
            add_batches(app, self.desk, lambda request: None)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            yield self
        finally:
            await runner.cleanup()

    def sent(self, what: str = "POST /batches") -> int:
        return self.seen.count(what)


async def ask(
    vendor: Vendor, texts: list[str], folder: Path | None = None, meter: Meter | None = None, n: int = 1,
    during: Callable[[Client], Awaitable[None]] | None = None, cache: Cache | None = None, **options: Any,
) -> list[Any]:  # fmt: skip
    client = Client(replace(BATCH, base_url=vendor.url, **options), vendor.url, cache, batches=folder)
    asked = asyncio.gather(*(client.complete(prompt(text), n, meter=meter) for text in texts), return_exceptions=True)
    try:
        if during is not None:
            await during(client)
        return [
            [c.text for c in outcome] if isinstance(outcome, list) else outcome
            for outcome in await asyncio.wait_for(asked, 20)
        ]
    finally:
        asked.cancel()
        await client.close()


def test_many_requests_go_as_one_file() -> None:
    async def main() -> None:
        async with Vendor(BatchDesk(echo)).up() as vendor:
            meter = Meter()
            assert await ask(vendor, [str(i) for i in range(300)], meter=meter) == [[str(i)] for i in range(300)]
            assert vendor.sent() == vendor.sent("POST /files") == 1
            assert "POST /chat/completions" not in vendor.seen
            assert (meter.requests, meter.completions, meter.retries) == (300, 300, 0)

    asyncio.run(main())


@pytest.mark.parametrize(("most", "batches"), [(100, 3), (299, 2), (5, 60)])
def test_a_batch_holds_at_most_so_many(most: int, batches: int) -> None:
    async def main() -> None:
        async with Vendor(BatchDesk(echo)).up() as vendor:
            texts = [str(i) for i in range(300)]
            assert await ask(vendor, texts, batch_requests=most) == [[text] for text in texts]
            assert vendor.sent() == batches

    asyncio.run(main())


def test_a_refused_line_costs_its_record_only_and_one_without_answer_is_asked_again() -> None:
    async def main() -> None:
        desk = BatchDesk(echo)
        async with Vendor(desk).up() as vendor:
            lose = {"once"}

            def some_lines_get_lost(request: web.Request) -> web.Response | None:
                if not request.path.endswith("/content") or not lose:
                    return None
                lines = desk.files[request.match_info["name"]].splitlines(True)
                kept = [line for line in lines if b"once" not in line]
                if len(kept) == len(lines):
                    return None
                lose.clear()
                return web.Response(body=b"".join(kept) + b"no json\n" + b'{"custom_id": 5}\n')

            vendor.spoil = some_lines_get_lost
            first, long, once = await ask(vendor, ["a", "long", "once"])
            assert (first, once) == (["a"], ["once"])
            assert isinstance(long, DropRecord)
            assert "too long" in long.detail
            assert vendor.sent() == 2

    asyncio.run(main())


def test_samples_that_are_asked_in_the_same_words_have_answers_of_their_own() -> None:
    async def main() -> None:
        numbers = iter(range(100))
        async with Vendor(BatchDesk(lambda body: (200, says(str(next(numbers)))))).up() as vendor:
            ((*found,),) = await ask(vendor, ["x"], n=5, send_seed=False, max_n=1)
            assert sorted(map(int, found)) == [0, 1, 2, 3, 4]
            assert vendor.sent() == 1

    asyncio.run(main())


@pytest.mark.parametrize("when", ["in progress", "completed", "its beginning was lost", "only the file is there"])
def test_the_next_run_finds_what_the_last_has_sent(when: str, tmp_path: Path) -> None:
    async def main() -> None:
        desk = BatchDesk(echo, latency=0.3)
        async with Vendor(desk).up() as vendor:
            started = asyncio.Event()

            def look(request: web.Request) -> web.Response | None:
                if request.path == "/v1/batches/batch_000000":
                    started.set()
                if request.method == "POST" and request.path == "/v1/batches" and when[:2] in ("it", "on"):
                    if when.startswith("it"):
                        desk.begin({"input_file_id": "file-000000", "endpoint": "/v1/chat/completions",
                                    "completion_window": "24h"})  # fmt: skip
                    started.set()
                    return web.Response(status=500)
                return None

            async def stop(client: Client) -> None:
                await started.wait()
                client.stop()

            vendor.spoil = look
            outcomes = await ask(vendor, ["a", "b"], tmp_path, during=stop)
            assert [type(outcome) for outcome in outcomes] == [Unfinished, Unfinished]
            if when == "completed":
                await asyncio.sleep(0.4)
            vendor.spoil = lambda request: None
            vendor.seen.clear()
            assert await ask(vendor, ["b", "a"], tmp_path) == [["b"], ["a"]]
            assert vendor.sent("POST /files") == 0
            assert vendor.sent() == (1 if when.startswith("only") else 0)
            assert len(desk.batches) == 1
            # Of another model, or elsewhere: not its own.
            assert await ask(vendor, ["a"], tmp_path, model="other") == [["a"]]
            assert len(desk.batches) == 2

    asyncio.run(main())


def test_a_batch_that_the_server_forgot_and_a_note_that_is_damaged_cost_nothing_but_another(tmp_path: Path) -> None:
    async def main() -> None:
        desk = BatchDesk(echo, latency=0.2)
        async with Vendor(desk).up() as vendor:

            async def stop(client: Client) -> None:
                while not list(tmp_path.glob("*.json")):  # noqa: ASYNC110, ASYNC240
                    await asyncio.sleep(0.01)
                client.stop()

            await ask(vendor, ["a"], tmp_path, during=stop)
            desk.batches.clear()
            desk.files.clear()
            (tmp_path / "damaged.json").write_text("{")
            assert await ask(vendor, ["a"], tmp_path) == [["a"]]

    asyncio.run(main())


def test_a_server_that_is_away_while_a_batch_is_waited_for_loses_nothing() -> None:
    async def main() -> None:
        desk = BatchDesk(echo, latency=0.2)
        async with Vendor(desk).up() as vendor:
            faults = iter([500, 429, 503, 500])
            vendor.spoil = lambda request: (
                web.Response(status=fault) if request.method == "GET" and (fault := next(faults, 0)) else None
            )
            assert await ask(vendor, ["a", "b"]) == [["a"], ["b"]]
            assert len(desk.batches) == 1

    asyncio.run(main())


def test_a_full_queue_is_waited_for() -> None:
    async def main() -> None:
        desk = BatchDesk(echo, latency=0.2, queue=10)
        async with Vendor(desk).up() as vendor:
            texts = [str(i) for i in range(20)]
            assert await ask(vendor, texts, batch_requests=10, max_retries=0) == [[text] for text in texts]
            assert sorted({batch["status"] for batch in desk.batches.values()}) == ["completed", "failed"]

    asyncio.run(main())


def failing(desk: BatchDesk) -> None:
    desk.queue = 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"POST /v1/files": web.Response(status=404)}, "it has no Batch API .HTTP 404 for /files.: leave"),
        ({"POST /v1/files": web.Response(status=401, text='{"error": {"message": "key ***"}}')}, "401.*check the key"),
        ({"POST /v1/batches": web.Response(status=400, text='{"error": {"message": "no model"}}')}, "HTTP 400: no mod"),
        ("queue", "batch_000000 failed: Enqueued request limit reached: 0"),
        ("cancelled", "batch_000000 was cancelled with 2 requests unanswered"),
    ],
    ids=["no API", "401", "400", "failed", "cancelled"],
)
def test_what_stops_the_run(spoil: Any, said: str, tmp_path: Path) -> None:
    async def main() -> None:
        desk = BatchDesk(echo, latency=0.3, queue=0 if spoil == "queue" else None)
        async with Vendor(desk).up() as vendor:
            if isinstance(spoil, dict):
                vendor.spoil = lambda request: next(
                    (answer for what, answer in spoil.items() if f"{request.method} {request.path}" == what), None
                )

            async def cancel(client: Client) -> None:
                while not desk.batches:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                desk.batches["batch_000000"]["status"] = "cancelling"

            outcomes = await ask(vendor, ["a", "b"], tmp_path, during=cancel if spoil == "cancelled" else None)
            assert {type(outcome) for outcome in outcomes} == {ModelUnavailable}
            with pytest.raises(ModelUnavailable, match=said):
                raise outcomes[0]
            # The next command begins anew.
            vendor.spoil, desk.queue = lambda request: None, None
            assert await ask(vendor, ["a", "b"], tmp_path) == [["a"], ["b"]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": ["http://a/v1", "http://b/v1"]}, "needs one base_url"),
        ({"base_url": "", "serve": "vllm"}, "needs one base_url"),
        ({"rpm": 5}, "rpm is for single requests"),
        ({"hedge": 2.0}, "hedge is for single requests"),
        ({"batch_requests": 0}, "batch_requests must be above 0"),
        ({"mode": "live"}, "batch_wait is for mode: batch"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(BATCH, **options)


@pytest.mark.heavy
def test_the_ten_steps_by_the_batch_give_the_same_bytes(tmp_path: Path) -> None:
    """Whatever a step asks for, refused or cut, against the simulated teacher; then again without a request."""

    with teacher("--batch-latency", "0.5") as url:
        common = [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), "--base-url", url, *SMALL, "--quiet"]
        options = ("mode=batch", "batch_wait=0.3", "batch_poll=0.1")
        batch = [word for o in options for m in ("teacher", "judge") for word in ("--set", f"models.{m}.{o}")]
        for how, out in (([], "live"), (batch, "batch"), (batch, "batch")):
            subprocess.run([*common, *how, "--output-dir", str(tmp_path / out)], check=True, timeout=120)
    assert tree(tmp_path / "batch") == tree(tmp_path / "live")
    totals = json.loads((tmp_path / "batch" / "run.json").read_text())["totals"]
    assert (totals["requests"], totals["hits"] > 100) == (0, True)
    assert len(list((tmp_path / "batch" / "cache" / "batches").glob("*.json"))) > 3
