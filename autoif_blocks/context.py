"""What the blocks of one task share while it runs: an event loop, model clients, the sandbox, the cache, output files.

A `RunContext` is plain data until `open` is called, so pipelines that hold one can be copied and pickled; every task
opens its own and closes it at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from loguru import logger

from .accounting import PASSING, Meter
from .budget import Budget, Purse
from .cache import BATCHES, Cache
from .cache_parts import part_of
from .client import Client
from .errors import AutoIFError, StopRun, disk_trouble
from .models import ModelConfig
from .records import to_line
from .sandbox import Sandbox, SandboxConfig
from .serving import Served, ServerSpec, serving
from .stopping import LOOK, stop_flag
from .streaming import Feeder
from .warned import LastWarning

T = TypeVar("T")
STATUS_INTERVAL = 0.5  # seconds between two writings of a task's counts


@dataclass(frozen=True)
class RunSettings:
    """What a run is given; picklable, and free of secrets."""

    work_dir: str
    """where this stage's tasks leave their parts of the output files"""
    cache_dir: str | None = None
    cache_per_task: bool = False
    seed: int = 0
    text_field: str = "text"
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    base_urls: Mapping[str, str] = field(default_factory=dict)
    """where each model is served in this run: the simulated teacher's address is known only once it has started"""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    flush_interval: float = 5.0
    stop_file: str | None = None
    """where the run's stop is written; None: by this stage's own folder"""
    budget: Budget = field(default_factory=Budget)
    began: float = field(default_factory=time.time)
    """when the command began, by the clock on the wall"""
    paid: Meter = field(default_factory=Meter)
    """what the command has paid for already"""
    servers: Mapping[str, ServerSpec] = field(default_factory=dict)
    """the servers that are started for models"""
    served_in: str | None = None
    """where the run tells of those that it has started; None: each task starts its own"""
    logs: str = "logs"
    """where the servers of tasks leave what they say"""


class RunContext:
    """Shared by all blocks of a pipeline; open between the first and the last record of a task."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.meters: dict[tuple[str, int, str], Meter] = {}
        """counts by (step, position of the block in the step, the block's name)"""
        self.places: list[tuple[str, int, str]] = []
        """the blocks that will count, in order: one that nothing has reached yet has counted nothing, and says so"""
        self._opened: _Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "meters": {}, "places": self.places, "_opened": None}

    def __repr__(self) -> str:
        return f"RunContext({self.settings.work_dir})"

    def meter(self, step: str, position: int, block: str) -> Meter:
        key = (step, position, block)
        return self.meters.get(key) or self.meters.setdefault(key, Meter())

    def announce(self) -> None:
        """Says which blocks will count, before any task has begun: a run may end before it comes to them."""
        path = Path(self.settings.work_dir) / "00000.status.json"
        with _disk_trouble_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_status(path, {place: Meter() for place in self.places})

    def open(self, rank: int) -> None:
        """Starts the task's event loop and makes its folder of parts. Called once, by the outermost pipeline step."""
        for place in self.places:
            self.meter(*place)
        _collect_rarely(1)
        try:
            self._opened = _Opened(self.settings, rank, self.meters)
        except BaseException:
            _collect_rarely(-1)
            raise

    def close(self, finished: bool) -> None:
        """Ends everything that `open` and the blocks began; `finished` says that the blocks came to their end."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            try:
                opened.close(finished)
            finally:
                _collect_rarely(-1)

    @property
    def _now(self) -> _Opened:
        if self._opened is None:
            raise AutoIFError("this block works within a run: put it in a recipe, or open its RunContext first")
        return self._opened

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._now.loop

    @property
    def stopping(self) -> bool:
        """Whether the run is to end early: what has not begun shall not begin."""
        return self._opened is not None and self._opened.flag.stop is not None

    @property
    def overdue(self) -> bool:
        """Whether the run must end now, and drop from its hands what is in flight."""
        return self._opened is not None and self._opened.flag.overdue

    def cut_short(self) -> None:
        """Notes that a record was left where it is, because the run is stopping."""
        if self._opened is not None:
            self._opened.whole = False

    @property
    def feeders(self) -> list[Feeder]:
        """The threads that pull records; closing the context ends them all."""
        return self._now.feeders

    def client(self, model: str) -> Client:
        """The task's one client of a model; steps that name the same model share its slots."""
        now = self._now
        if model not in now.clients:
            config = self.settings.models[model]
            spec = self.settings.servers.get(model)
            url = self.settings.base_urls.get(model) or config.base_urls if spec is None else ""
            served = Served(now.served_in / spec.file("json")) if spec is not None else None
            batches = Path(self.settings.cache_dir) / BATCHES if self.settings.cache_dir else None
            now.clients[model] = Client(config, url, now.cache, self.settings.seed, now.purse.admit, served, batches)
        return now.clients[model]

    async def sandbox(self) -> Sandbox:
        """The task's one sandbox, started when it is first needed. Call it on the event loop."""
        now = self._now
        async with now.sandbox_lock:
            if now.sandbox is None:
                now.sandbox = await Sandbox(self.settings.sandbox).__aenter__()
        return now.sandbox

    def write(self, file: str, row: Mapping[str, Any]) -> None:
        """Adds a row, which must have an `id`, to this task's part of an output file.

        Raises:
            TypeError: a value has no JSON form.
            ValueError: a number is NaN or infinite.
        """
        self._now.write(file, to_line(row))

    def touch(self, file: str) -> None:
        """Makes the file exist, even if no row is ever written to it."""
        self._now.part(file)


class _Opened:
    """The live half of a context."""

    def __init__(self, settings: RunSettings, rank: int, meters: Mapping[tuple[str, int, str], Meter]) -> None:
        self.folder = Path(settings.work_dir) / f"{rank:05d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._status = Path(settings.work_dir) / f"{rank:05d}.status.json"
        self._meters = meters
        self._parts: dict[str, IO[bytes]] = {}
        self._write_lock = threading.Lock()
        self.whole = True
        self.flag = stop_flag(settings.stop_file or self.folder.parent / "stop.json")
        self.flag.look()
        self.purse = Purse(settings.budget, self.flag, settings.began, self._status, meters, settings.paid)
        self.cache = _cache(settings, self.folder) if settings.cache_dir else None
        self.clients: dict[str, Client] = {}
        self.feeders: list[Feeder] = []
        self.sandbox: Sandbox | None = None
        self.sandbox_lock = asyncio.Lock()
        self._own = contextlib.ExitStack()
        ours = self.folder.parents[1] / "servers" / f"{self.folder.parent.name}-{self.folder.name}"
        self.served_in = Path(settings.served_in or ours)
        if settings.servers and settings.served_in is None:
            servers = list(settings.servers.values())
            self._own.enter_context(serving(servers, self.served_in, Path(settings.logs), logger.info, rank))
        self.warnings = LastWarning().__enter__()
        self.loop = event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="autoif-loop", daemon=True)
        self._thread.start()
        self._told = False
        self._closing = threading.Event()
        self._reporter = threading.Thread(target=self._report, name="autoif-status", daemon=True)
        self._reporter.start()

    def part(self, file: str) -> IO[bytes]:
        if file not in self._parts:
            with self._write_lock, _disk_trouble_told(self.folder, file):
                path = self.folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                self._parts[file] = self._parts.get(file) or path.open("wb")
        return self._parts[file]

    def write(self, file: str, line: bytes) -> None:
        part = self.part(file)
        with self._write_lock, _disk_trouble_told(self.folder, file):
            part.write(line)

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self, finished: bool) -> None:
        for feeder in self.feeders:
            feeder.stopping.set()
        for feeder in self.feeders:
            feeder.join()
        try:
            self.call(self._shut())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            self._closing.set()
            self._reporter.join()
            # The last error is raised, and nothing stays open.
            with _disk_trouble_told(self.folder), contextlib.ExitStack() as stack:
                stack.callback(self._own.close)
                stack.callback(self.purse.close)
                stack.callback(self.warnings.__exit__)
                if self.cache is not None:
                    stack.callback(self.cache.close)
                for part in self._parts.values():
                    stack.callback(part.close)
        with _disk_trouble_told(self._status):
            self._tell(finished and self.whole)

    def _tell(self, finished: bool) -> None:
        servers = [[name, *astuple(one)] for name, client in list(self.clients.items()) for one in client.health()]
        now = {"servers": [] if finished else servers, "warning": self.warnings.last}
        _write_status(self._status, self._meters, finished, now)

    async def _shut(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for client in self.clients.values():
            await client.close()
        if self.sandbox is not None:
            await self.sandbox.__aexit__(None, None, None)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()

    def _stop_clients(self) -> None:
        for client in self.clients.values():
            client.stop()

    def _report(self) -> None:
        interval = max(0.05, min(STATUS_INTERVAL, self.cache.flush_interval)) if self.cache else STATUS_INTERVAL
        due = 0.0
        while not self._closing.wait(min(LOOK, interval)):
            self.purse.look()
            if self.flag.look() is not None and not self._told:
                self._told = True
                self.loop.call_soon_threadsafe(self._stop_clients)
            # The cache first, so that what the counts show as done is kept.
            if self.cache is not None and self.cache.due:
                with contextlib.suppress(StopRun):  # the cache remembers, and tells whoever next brings a completion
                    self.cache.flush()
            if time.monotonic() < due:
                continue
            due = time.monotonic() + interval
            with contextlib.suppress(OSError):  # a view that is not shown; what must be written says so itself
                self._tell(finished=False)


def _cache(settings: RunSettings, task: Path) -> Cache:
    whole = Path(settings.cache_dir or "")
    if not settings.cache_per_task:
        return Cache(whole, settings.flush_interval, task)
    return Cache(part_of(whole, f"{task.parent.name}-{task.name}"), settings.flush_interval, task, whole)


def _write_status(
    path: Path, meters: Mapping[tuple[str, int, str], Meter], finished: bool = False, now: dict[str, Any] | None = None
) -> None:
    """`state.RunState` reads it."""
    visible = [(key, meter) for key, meter in list(meters.items()) if key[0]]
    counts = [[*key, meter.to_dict()] for key, meter in visible]
    passing = [[getattr(meter, name) for name in PASSING] for _, meter in visible]
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({"finished": finished, "meters": counts, "passing": passing, **(now or {})}))
    aside.replace(path)


_collecting = threading.Lock()
_usual = gc.get_threshold()
_open = 0


def _collect_rarely(opened: int) -> None:
    """While a context is open Python looks for cycles less often: each time it goes over all that is in flight, which
    took a tenth of a run's time and finds next to nothing."""
    global _open, _usual
    with _collecting:
        if _open == 0:
            _usual = gc.get_threshold()
        _open += opened
        gc.set_threshold(*(max(10_000, _usual[0]), *_usual[1:]) if _open and _usual[0] else _usual)


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: it takes less of the processor's time."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@contextlib.contextmanager
def _disk_trouble_told(place: Path, file: str = "") -> Iterator[None]:
    """`file` is one in that place: the two are put together only where there is trouble, as rows are written often."""
    try:
        yield
    except OSError as error:
        place /= file
        raise disk_trouble(error, place) or StopRun(f"cannot write {place}: {error}") from error
