"""Fixtures: a scripted model on a real loopback port, and a way to run a few steps over a few records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from documented import Prepared, alone, autoif, checkout

from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.simulated import simulated_teacher

ROOT = Path(__file__).parent.parent
AUTOIF = ROOT / "autoif.yaml"
SMALL = ["--set", "steps.augment_instructions.self_instruct.n=4", "--limit", "12"]
Reply = str | list[str] | int
"""a completion, used for every choice; a completion for each sample index; or an HTTP status to fail with"""


@contextlib.contextmanager
def serving_app(app: web.Application) -> Iterator[str]:
    """A model server that answers on loopback, from a thread; gives its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class FakeModel:
    """An OpenAI-compatible server on loopback whose answers a test scripts: `model.answer = lambda prompt: ...`."""

    def __init__(self) -> None:
        self.answer: Callable[[str], Reply] = lambda prompt: "ok"
        self.bodies: list[dict[str, Any]] = []
        self.prompts: list[str] = []
        self.latency = 0.0
        self.in_flight = self.most_in_flight = 0
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self._serving = serving_app(app)
        self.url = self._serving.__enter__()

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        self.bodies.append(body)
        self.prompts.append(prompt)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.latency)
        self.in_flight -= 1
        reply = self.answer(prompt)
        if isinstance(reply, int):
            return web.json_response({"error": {"message": "as the test wishes"}}, status=reply)
        texts = [reply] * body.get("n", 1) if isinstance(reply, str) else reply[: body.get("n", 1)]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response({**about, "choices": choices, "usage": usage})

    def close(self) -> None:
        self._serving.__exit__(None, None, None)


@pytest.fixture
def model() -> Iterator[FakeModel]:
    fake = FakeModel()
    yield fake
    fake.close()


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]  # not at U+2028, as text would


def children(pid: int) -> list[int]:
    """The processes that a process has started and not reaped."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())


def tree(folder: Path) -> dict[str, bytes]:
    """The result files of a run, without what tells one run from another."""
    skipped = ("cache", "logs", ".lock", "run.json")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in skipped
    }


def wait_for_completions(out: Path, count: int) -> None:
    """Until all tasks of a run in another process have so many together."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = 0
        for path in out.glob(".work/stage-*/*.status.json"):
            with contextlib.suppress(ValueError, OSError):
                found += sum(meter[3]["completions"] for meter in json.loads(path.read_text())["meters"])
        if found >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the run made no progress")


class Bench:
    """Runs steps over records, through a real recipe and a real run."""

    def __init__(self, folder: Path, model: FakeModel) -> None:
        self.folder = folder
        self.model = model
        self.out = folder / "out"
        self.result: dict[str, Any] = {}

    def recipe(self, steps: str, records: list[dict[str, Any]], more: str = "") -> Path:
        fields = sorted(set.intersection(*(set(record) for record in records))) if records else []
        (self.folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        path = self.folder / "recipe.yaml"
        path.write_text(
            f"output_dir: {self.out}\n{more}\n"
            f"models:\n  teacher: {{base_url: {self.model.url}, model: fake, max_retry_wait: 0.05}}\n"
            f"steps:\n  - {{name: given, block: read_jsonl, path: in.jsonl, fields: {json.dumps(fields)}}}\n{steps}"
        )
        return path

    def run(self, steps: str, records: list[dict[str, Any]], more: str = "", **options: Any) -> list[dict[str, Any]]:
        """The records that are left at the end; `dropped` and `discarded` have the others."""
        recipe = Recipe.load(self.recipe(steps, records, more))
        self.result = recipe.run(RunOptions(**options))
        return rows(self.out / recipe.steps[-1].file)

    def step(self, name: str) -> dict[str, Any]:
        return next(step for step in self.result["steps"] if step["name"] == name)

    def dropped(self, step: str) -> list[dict[str, Any]]:
        return rows(self.out / "dropped" / f"{step}.jsonl")

    def discarded(self, step: str) -> list[dict[str, Any]]:
        path = self.out / "discarded" / f"{step}.jsonl"
        return rows(path) if path.exists() else []


@pytest.fixture(autouse=True)
def forgotten_blocks() -> Iterator[None]:
    """A recipe's own blocks are modules of the process that has read them: here, until the test's end."""
    path = [*sys.path]
    yield
    added = {*sys.path} - {*path}
    sys.path[:] = path
    for name, module in [*sys.modules.items()] if added else []:
        if str(Path(getattr(module, "__file__", None) or "").parent) in added:
            del sys.modules[name]


@pytest.fixture
def bench(tmp_path: Path, model: FakeModel) -> Bench:
    return Bench(tmp_path, model)


@pytest.fixture(scope="module")  # not of the session: other tests count this process's children
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """What a reader of the documentation has after its first command."""
    folder = checkout(tmp_path_factory.mktemp("checkout"))
    with simulated_teacher(tmp_path_factory.mktemp("teacher") / "log") as server:
        with alone(folder) as patch:
            patch.setenv("AUTOIF_BASE_URL", server)
            assert autoif("run", "autoif.yaml", "--quiet") == 0
        yield Prepared(folder, server)
