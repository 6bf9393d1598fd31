"""What the client costs: CPU per request and requests per second at zero latency, beside raw aiohttp; replay rate.

    python tests/benchmarks/bench_client.py [requests]

The server is a process of its own that parses nothing and always sends the same answer, so that what is measured is the
client. Each ratio is the median over rounds, within which the lines take turns, so that a machine which is now fast and
now slow is so for all of them; each is measured in a process of its own, so that none finds the memory as another has
left it.
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
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import Any

import aiohttp

from autoif_blocks.blocks.kinds import Generator
from autoif_blocks.cache import Cache
from autoif_blocks.client import Client
from autoif_blocks.context import RunContext, RunSettings, event_loop
from autoif_blocks.models import ModelConfig
from autoif_blocks.records import Record

SLOTS = 64
ROUNDS = 15
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
    """Seconds, of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


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


def apart(work: Callable[[], object]) -> tuple[float, float]:
    """Does it in a process of its own, which is forked from this one: that holds nothing but the modules. Gives its
    seconds on the wall and of the processor."""
    found = multiprocessing.SimpleQueue()  # type: ignore[var-annotated]

    def timed() -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.put((time.perf_counter() - wall, time.process_time() - cpu))

    process = multiprocessing.Process(target=timed)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("a measurement failed, as told above")
    seconds: tuple[float, float] = found.get()
    return seconds


def measure(cost: Cost, work: Callable[[], object]) -> None:
    wall, cpu = apart(work)
    cost.wall.append(wall)
    cost.cpu.append(cpu)


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


def with_cache(folder: str, work: Callable[[Cache], Coroutine[Any, Any, object]]) -> None:
    with contextlib.closing(Cache(folder)) as cache:
        on_loop(work(cache))


def rounds(url: str, count: int, costs: dict[str, Cost], suffix: str) -> None:
    measure(costs["raw aiohttp" + suffix], lambda: on_loop(raw(url, count)))
    measure(costs["client" + suffix], lambda: on_loop(ours(url, count, None)))
    with tempfile.TemporaryDirectory() as folder:
        cost = costs["client, cache on" + suffix]
        measure(cost, lambda: with_cache(folder, lambda cache: ours(url, count, cache)))
        cost = costs["replay, n = 1" + suffix]
        measure(cost, lambda: with_cache(folder, lambda cache: replay(cache, count, 1)))
        apart(lambda: with_cache(folder, lambda cache: fill(url, count // 8, cache)))
        cost = costs["replay, n = 8" + suffix]
        measure(cost, lambda: with_cache(folder, lambda cache: replay(cache, count // 8, 8)))
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
    print(f"{count} requests, {SLOTS} at a time, medians of {ROUNDS}; x raw: raw aiohttp on asyncio's own loop")
    for name, cost in costs.items():
        rate = count / median(cost.wall)
        if name.startswith("replay"):
            print(f"{name:34} {rate:6.0f} completions/s")
            continue
        print(
            f"{name:34} {median(cost.cpu) / count * 1e3:6.3f} ms CPU a request ({_times(cost.cpu, base.cpu)} x raw)   "
            f"{rate:6.0f} requests/s ({_times(base.wall, cost.wall)} x raw)"
        )


def _times(these: list[float], those: list[float]) -> str:
    """The median of the ratios of rounds."""
    return f"{median(one / other for one, other in zip(these, those, strict=True)):4.2f}"


async def fill(url: str, requests: int, cache: Cache) -> None:
    client = Client(ModelConfig(url, "m", max_concurrency=SLOTS, max_n=1), url, cache)
    await side_by_side(requests, lambda number: client.complete(messages(number), 8, sampling={"temperature": 0.7}))
    await client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
