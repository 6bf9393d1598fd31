"""What the client costs: CPU per request and requests per second at zero latency, beside raw aiohttp; replay rate.

    python tests/benchmarks/bench_client.py [requests]

The server is a process of its own that parses nothing and always sends the same answer, so that what is measured is the
client. Each line is the best of three rounds, taken in turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import aiohttp

from autoif_blocks.blocks.kinds import Generator
from autoif_blocks.cache import Cache
from autoif_blocks.client import Client
from autoif_blocks.context import RunContext, RunSettings, event_loop
from autoif_blocks.models import ModelConfig
from autoif_blocks.records import Record

SLOTS = 64
ROUNDS = 3
PROMPT = "Write a function that checks the instruction. " * 20
TEXT = "def evaluate(response):\n    return len(response.split()) > 3\n" * 8


class Canned(asyncio.Protocol):
    """An HTTP server as fast as Python allows: it counts bytes and answers."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.transport.write(self.answer)


def serve(ready: Any) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 240, "completion_tokens": 130}}
    ).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Canned(answer), "127.0.0.1", 0)
        ready.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await server.serve_forever()

    asyncio.run(main())


@dataclass
class Cost:
    wall: float = float("inf")
    cpu: float = float("inf")

    def keep(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu)


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{number} {PROMPT}"}]


async def side_by_side(count: int, ask: Callable[[int], Awaitable[object]]) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await ask(number)

    await asyncio.gather(*(worker() for _ in range(SLOTS)))


async def raw(url: str, count: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number: int) -> str:
            body = {"model": "m", "messages": messages(number), "temperature": 0.7, "seed": number}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return str(json.loads(await response.read())["choices"][0]["message"]["content"])

        await side_by_side(count, ask)


async def ours(url: str, count: int, cache: Cache | None) -> None:
    client = Client(ModelConfig(url, "m", max_concurrency=SLOTS), url, cache)
    await side_by_side(count, lambda number: client.complete(messages(number), sampling={"temperature": 0.7}))
    await client.close()


async def replay(cache: Cache, requests: int, n: int) -> None:
    """Asks again for what is there; the address is one that nobody listens at."""
    client = Client(ModelConfig("http://127.0.0.1:1/v1", "m"), "http://127.0.0.1:1/v1", cache)
    await side_by_side(requests, lambda number: client.complete(messages(number), n, sampling={"temperature": 0.7}))
    await client.close()


class Ask(Generator):
    def parse(self, completions: list[str], record: Record) -> Iterable[Record]:
        return [record.with_(answer=completions[0])]


def step(url: str, count: int, folder: str) -> None:
    """A whole pipeline step, cache on."""
    model = ModelConfig(url, "m", max_concurrency=SLOTS)
    context = RunContext(RunSettings(folder, cache_dir=folder, models={"teacher": model}))
    block = Ask("{{ number }} " + PROMPT, temperature=0.7)
    block.bind("ask", 0, context)
    context.open(0)
    try:
        assert sum(1 for _ in block.run(Record.new(i, number=i).document for i in range(count))) == count
    finally:
        context.close(True)


def measure(cost: Cost, work: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cost.keep(time.perf_counter() - wall, time.process_time() - cpu)


@contextlib.contextmanager
def without_uvloop() -> Iterator[None]:
    """As if it were not installed."""
    there = sys.modules.pop("uvloop", None)
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["uvloop"]
        if there is not None:
            sys.modules["uvloop"] = there


def on_loop(work: Coroutine[Any, Any, object]) -> None:
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(work)


def rounds(url: str, count: int, costs: dict[str, Cost], suffix: str) -> None:
    measure(costs["raw aiohttp" + suffix], lambda: on_loop(raw(url, count)))
    measure(costs["client" + suffix], lambda: on_loop(ours(url, count, None)))
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(folder)
        measure(costs["client, cache on" + suffix], lambda: (on_loop(ours(url, count, cache)), cache.flush()))
        measure(costs["replay, n = 1" + suffix], lambda: on_loop(replay(cache, count, 1)))
        on_loop(fill(url, count // 8, cache))
        measure(costs["replay, n = 8" + suffix], lambda: on_loop(replay(cache, count // 8, 8)))
        cache.close()
    with tempfile.TemporaryDirectory() as folder:
        measure(costs["pipeline step, cache on" + suffix], lambda: step(url, count, folder))


def main(count: int) -> None:
    ready = multiprocessing.Queue()  # type: ignore[var-annotated]
    server = multiprocessing.Process(target=serve, args=(ready,), daemon=True)
    server.start()
    url = ready.get()
    loops = ["", ", uvloop"] if find_spec("uvloop") else [""]
    costs: dict[str, Cost] = defaultdict(Cost)
    for _ in range(ROUNDS):
        for suffix in loops:
            with contextlib.nullcontext() if suffix else without_uvloop():
                rounds(url, count, costs, suffix)
    server.terminate()
    base = costs["raw aiohttp"]
    print(f"{count} requests, {SLOTS} at a time, best of {ROUNDS}; x raw: raw aiohttp on asyncio's own loop")
    for name, cost in costs.items():
        if name.startswith("replay"):
            print(f"{name:34} {count / cost.wall:6.0f} completions/s")
            continue
        print(
            f"{name:34} {cost.cpu / count * 1e3:6.3f} ms CPU a request ({cost.cpu / base.cpu:4.2f} x raw)   "
            f"{count / cost.wall:6.0f} requests/s ({base.wall / cost.wall:4.2f} x raw)"
        )


async def fill(url: str, requests: int, cache: Cache) -> None:
    client = Client(ModelConfig(url, "m", max_concurrency=SLOTS, max_n=1), url, cache)
    await side_by_side(requests, lambda number: client.complete(messages(number), 8, sampling={"temperature": 0.7}))
    await client.close()
    cache.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
