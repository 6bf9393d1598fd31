"""How full a run keeps the model server, beside what any scheduler could do with the same requests.

    python tests/benchmarks/bench_pipeline.py                               the ten steps, 64 slots, 9,500 requests
    python tests/benchmarks/bench_pipeline.py --slots 256 --latency 2       … 256 slots
    python tests/benchmarks/bench_pipeline.py --chain 1000                  three chained model steps over 1,000 records

The server is the simulated teacher in a process of its own, its latencies lognormal with sigma 0.8. The run is in this
process, whose patches note each request: what the teacher takes for it, and which answers its record came from. With
256 slots and a mean of 0.5 s two cores have no time for the teacher and the sandbox; so the latencies are scaled.

`bound` is max(sum of service times / slots, longest chain of requests); `greedy` the time of a simulated scheduler that
takes no time itself and for which the sandbox's work takes none. The wall time is that of `Recipe.run`, all of it, with
the start of the sandbox and the files at the end, without the half second in which Python imports the runner.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
from schedule import Request, all_knowing, bound, by_luck, greedy

from autoif_blocks import Recipe
from autoif_blocks.blocks.base import Block
from autoif_blocks.blocks.generators import SelfInstruct
from autoif_blocks.blocks.kinds import Generator
from autoif_blocks.endpoints import Endpoints
from autoif_blocks.records import Record
from autoif_blocks.run import RunOptions
from autoif_blocks.teacher.config import TeacherConfig
from autoif_blocks.teacher.server import service_time

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
TEN_STEPS = ["steps.backtranslator_filter.judge_label.model=teacher", "steps.score_quality.model=teacher"]
CHAIN = """
models: {{teacher: {{base_url: x, model: m}}}}
output_dir: out
steps:
  - {{name: given, block: read_jsonl, path: {path}, fields: [number]}}
  - {{name: first, block: respond, field: a, prompt: "Tell me about {{{{ number }}}}."}}
  - {{name: second, block: respond, field: b, prompt: "Tell me more about {{{{ number }}}}: {{{{ a }}}}"}}
  - {{name: third, block: respond, field: c, prompt: "Sum up what you know of {{{{ number }}}}: {{{{ b }}}}"}}
"""


class Recorder:
    """The requests of a run and what they depend on, noted while it goes."""

    def __init__(self, config: TeacherConfig) -> None:
        self.config = config
        self.requests: list[Request] = []
        self._jobs: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(dict)  # by record, then place of the step
        self._answered: set[int] = set()
        self._parent: dict[str, str] = {}
        self._samples: list[int] = []  # those of `self_instruct`
        self._sample_of: dict[str, int] = {}
        self._now: ContextVar[int] = ContextVar("request")
        self.sent: list[tuple[int, bytes]] = []

    def _before(self, record_id: str, place: tuple[int, int]) -> list[int]:
        """The requests that made a record what it is at a step: of the last model step of its own or of a parent."""
        at: str | None = record_id
        while at is not None:
            earlier = [other for other in self._jobs[at] if other < place]
            if earlier:
                return self._jobs[at][max(earlier)]
            if at in self._sample_of:
                return self._samples[: self._sample_of[at] + 1]  # read in order: each waits for those before it
            at = self._parent.get(at)
        return []

    def done(self) -> list[Request]:
        """The requests with their service times, which are reckoned only now: that takes longer than to send them."""
        for number, payload in self.sent:
            self.requests[number].service += service_time(self.config, payload)
        return self.requests

    @contextmanager
    def recording(self) -> Iterator[None]:
        ask, deliver, sample, post = Generator.ask, Block.deliver, SelfInstruct._sample, Endpoints.post
        noted = self

        async def noted_ask(self: Generator, record: Record, start: int = 0, n: int | None = None, **more: Any) -> Any:
            place, number = (self.order, self.position), len(noted.requests)
            if isinstance(self, SelfInstruct):
                after: list[int] = []
                noted._samples.append(number)
            else:
                mine = noted._jobs[record.id].setdefault(place, [])
                # What the record has been told here decides whether more is asked; side by side nothing is decided.
                after = noted._before(record.id, place) + [i for i in mine if i in noted._answered]
                mine.append(number)
            noted.requests.append(Request(0.0, self.order, after))
            noted._now.set(number)
            try:
                return await ask(self, record, start, n, **more)
            finally:
                noted._answered.add(number)

        def noted_deliver(self: Block, record: Record, children: Iterable[Record] | Exception) -> Any:
            for child in children if isinstance(children, list) else ():
                if child.id != record.id:
                    noted._parent.setdefault(child.id, record.id)
            return deliver(self, record, children)

        async def noted_sample(self: SelfInstruct, number: int) -> Any:
            lines = await sample(self, number)
            for text in lines if isinstance(lines, list) else ():
                made = Record.new(self.field, text).id
                noted._sample_of[made] = min(number, noted._sample_of.get(made, number))
            return lines

        async def noted_post(self: Endpoints, endpoint: Any, payload: bytes, *more: Any) -> Any:
            noted.sent.append((noted._now.get(), payload))
            return await post(self, endpoint, payload, *more)

        Generator.ask, Block.deliver = noted_ask, noted_deliver  # type: ignore[method-assign]
        SelfInstruct._sample, Endpoints.post = noted_sample, noted_post  # type: ignore[method-assign]
        try:
            yield
        finally:
            Generator.ask, Block.deliver = ask, deliver  # type: ignore[method-assign]
            SelfInstruct._sample, Endpoints.post = sample, post  # type: ignore[method-assign]


def raw_seconds(url: str, payloads: list[bytes], slots: int) -> float:
    """The processor's time that aiohttp alone takes for these requests, with as many in flight."""

    async def main() -> None:
        waiting = iter(payloads)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask() -> None:
                for payload in waiting:
                    async with session.post(f"{url}/chat/completions", data=payload, headers=JSON) as response:
                        json.loads(await response.read())

            await asyncio.gather(*(ask() for _ in range(slots)))

    began = time.process_time()
    asyncio.run(main())
    return time.process_time() - began


@contextmanager
def teacher(config: TeacherConfig) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "autoif_blocks.teacher", "--port", "0", "--models", "--exit-with-parent"]
    command += ["--latency", str(config.latency), "--latency-sigma", str(config.latency_sigma)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()


def seconds_of(process: subprocess.Popen[str]) -> float:
    """The processor's time that another process has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def recipe_of(options: argparse.Namespace, folder: Path, url: str) -> Recipe:
    pace = [f"models.teacher.base_url={url}", f"models.teacher.max_concurrency={options.slots}"]
    pace.append(f"output_dir={folder / 'out'}")
    if options.chain:
        (folder / "in.jsonl").write_text("".join(json.dumps({"number": i}) + "\n" for i in range(options.chain)))
        (folder / "chain.yaml").write_text(CHAIN.format(path=folder / "in.jsonl"))
        return Recipe.load(folder / "chain.yaml", overrides=pace)
    queries = f"steps.sharegpt_query.join_queries.per_record={options.queries}"
    return Recipe.load(ROOT / "autoif.yaml", overrides=[*pace, *TEN_STEPS, queries])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=64, help="requests in flight")
    parser.add_argument("--latency", type=float, default=0.5, help="mean seconds of an answer")
    parser.add_argument("--queries", type=int, default=32, help="queries for each instruction: 32 make 9,500 requests")
    parser.add_argument(
        "--chain", type=int, default=0, metavar="RECORDS", help="three chained steps instead of the ten"
    )
    options = parser.parse_args()
    config = TeacherConfig(latency=options.latency, latency_sigma=0.8)
    recorder = Recorder(config)
    with tempfile.TemporaryDirectory() as name, teacher(config) as (url, process):
        recipe = recipe_of(options, Path(name), url)
        with recorder.recording():
            served, children = seconds_of(process), resource.getrusage(resource.RUSAGE_CHILDREN)
            wall, cpu = time.perf_counter(), time.process_time()
            result = recipe.run(RunOptions())
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            served = seconds_of(process) - served
        sample = [payload for _, payload in recorder.sent[:: max(1, len(recorder.sent) // 2000)]]
        raw = raw_seconds(url, sample, options.slots) / len(sample)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    sandboxed = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    requests, count = recorder.done(), result["totals"]["requests"]
    lower, best = bound(requests, options.slots), greedy(requests, options.slots)
    what = "three chained steps" if options.chain else "ten steps"
    print(
        f"{what}: {result['records']} records, {count} requests, {options.slots} slots, latency {options.latency:g} s"
    )
    print(f"wall {wall:.2f} s   bound {lower:.2f} s   greedy, without overhead {best:.2f} s")
    print(f"bound / wall {lower / wall:.3f}   bound / greedy {lower / best:.3f}   greedy / wall {best / wall:.3f}")
    luck = [lower / end for end in by_luck(requests, options.slots)]
    print(f"bound / one that knows how long answers take {lower / all_knowing(requests, options.slots):.3f}", end="   ")
    print(
        f"bound / greedy in {len(luck)} other orders {luck[-1]:.3f} to {luck[0]:.3f}, median {luck[len(luck) // 2]:.3f}"
    )
    print(
        f"CPU: this process {cpu:.1f} s, {cpu / count * 1e3:.2f} ms a request (all threads; not the sandbox's children)"
    )
    print(f"     {cpu / count / raw:.1f} x what aiohttp alone takes for {len(sample)} of them: {raw * 1e3:.2f} ms each")
    print(f"     the teacher {served:.1f} s, the sandbox's processes {sandboxed:.1f} s")


if __name__ == "__main__":
    main()
