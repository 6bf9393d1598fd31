"""Bad luck on the way, as it comes: faulty servers, servers that go away and come back, and kill -9 at any moment.

Whatever happens, a run ends with the bytes of one that nothing happened to. The times are asserted loosely: they depend
on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from conftest import tree, wait_for_completions
from running import TASKS, command, counts_add_up, kill, run_json, served, start

from autoif_blocks.teacher import TeacherConfig
from autoif_blocks.teacher.server import make_app

pytestmark = pytest.mark.heavy

SLOW = ["--latency", "0.2"]
PATIENCE = ["--set", "models.teacher.timeout=2", "--set", "models.judge.timeout=2"]  # an answer takes 1.5 s at most
NOBODY = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Whole:
    """A run that nothing happens to."""

    files: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("whole")
    with served(*SLOW) as (_, url):
        subprocess.run(command(out, "--base-url", url, "--quiet"), check=True)
    assert run_json(out)["totals"]["retries"] == 0
    return Whole(tree(out), run_json(out)["seconds"])


FAULTS = {
    "1% errors": ["--error-500-rate", "0.01"],
    "5% busy": ["--error-429-rate", "0.05", "--retry-after", "1"],
    "1% silence": ["--hang-rate", "0.01"],
    "1% cut off": ["--disconnect-rate", "0.01"],
}
ALL = [option for options in FAULTS.values() for option in options]


@pytest.mark.parametrize(
    ("faults", "one_down", "restarted"),
    [
        *((faults, False, False) for faults in FAULTS.values()),
        ([], True, False),
        ([], False, True),
        (ALL, True, True),
    ],
    ids=[*FAULTS, "one of two down", "restart", "all of it"],
)
def test_faults_change_no_byte(
    faults: list[str], one_down: bool, restarted: bool, tmp_path: Path, whole: Whole
) -> None:
    with contextlib.ExitStack() as stack:
        server, url = stack.enter_context(served(*SLOW, *faults))
        urls = f"{NOBODY},{url}" if one_down else url
        run = start(tmp_path, "--base-url", urls, *PATIENCE)
        if restarted:
            wait_for_completions(tmp_path, 100)
            server.kill()
            server.wait()
            time.sleep(2)
            port = url.split(":")[2].split("/")[0]
            stack.enter_context(served(*SLOW, *faults, "--port", port))
        _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert tree(tmp_path) == whole.files
    counts_add_up(tmp_path)
    done = run_json(tmp_path)
    assert done["totals"]["retries"] > 0
    print(f"{done['seconds'] / whole.seconds:.2f} x the time of a run without faults")
    assert done["seconds"] < 3 * whole.seconds + 20


# kill -9


class Watched:
    """The simulated teacher in a thread of this process; notes when each request came and when it was answered."""

    def __init__(self, config: TeacherConfig) -> None:
        self.came: dict[bytes, list[float]] = {}
        self.answered: dict[bytes, list[float]] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(config), self._loop).result(10)

    async def _start(self, config: TeacherConfig) -> str:
        @web.middleware
        async def note(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            body = await request.read()
            self.came.setdefault(body, []).append(time.monotonic())
            response = await handler(request)
            self.answered.setdefault(body, []).append(time.monotonic())
            return response

        app = make_app(config)
        app.middlewares.append(note)
        # A request whose client is gone ends there and then, as if it had never been answered.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def wait_for(self, distinct: int, run: subprocess.Popen[str]) -> None:
        """Until so many different requests have come, or the run has ended."""
        while len(self.came) < distinct and run.poll() is None:
            time.sleep(0.01)

    def paid_twice(self) -> int:
        """Answers to what had been answered before."""
        return sum(len(times) - 1 for times in self.answered.values())


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    server = Watched(TeacherConfig(latency=request.param))
    yield server
    server.close()


KILLS = 10  # by each of two ways to choose the moments
FLUSH = 0.05
WAYS = [(group, tasks) for tasks in TASKS for group in (False, True)]


@pytest.mark.parametrize("watched", [0.2], indirect=True)
@pytest.mark.parametrize("by_clock", [False, True], ids=["by progress", "by the clock"])
def test_kill_9_at_random_moments(by_clock: bool, tmp_path: Path, watched: Watched, whole: Whole) -> None:
    """By the clock, the kills fall into start-up, replay and the writing of the files too."""
    luck = random.Random(f"kills {by_clock}")
    marks = sorted(luck.randrange(480) for _ in range(KILLS))
    waits = [luck.uniform(0, 1.1 * whole.seconds) for _ in range(KILLS)]
    killed = []
    for number in range(KILLS):
        group, tasks = WAYS[number % len(WAYS)]
        run = start(tmp_path, "--base-url", watched.url, "--set", f"flush_interval={FLUSH}", *TASKS[tasks])
        if by_clock:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(waits[number])
        else:
            watched.wait_for(marks[number], run)
            time.sleep(luck.uniform(0, 0.1))
        if run.poll() is None:
            killed.append(kill(run, group))
        else:
            said = run.communicate()[1]
            assert run.returncode == 0, said
    assert len(killed) > KILLS / 2
    done = subprocess.run(command(tmp_path, "--base-url", watched.url), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == whole.files
    counts_add_up(tmp_path)
    # What was answered and kept is never asked again; what a kill cost is what came just before it.
    for body, answers in watched.answered.items():
        for answer in answers:
            cost = any(answer - 0.1 < moment < answer + 20 * FLUSH for moment in killed)
            assert cost or max(watched.came[body]) <= answer
    asked, different = sum(map(len, watched.came.values())), len(watched.came)
    print(f"{len(killed)} kills: {different} requests, {watched.paid_twice()} answered twice, {asked} sent")
    # A kill costs at most the answers of one `flush_interval`: of a run this short, more than of one that takes hours.
    in_an_interval = FLUSH * different / whole.seconds
    assert watched.paid_twice() <= len(killed) * in_an_interval
