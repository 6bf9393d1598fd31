"""The simulated teacher's Batch API: files and batches as OpenAI has them, kept in memory.

A batch is answered line by line, `batch_latency` seconds after it came, by what answers single requests; faults are of
single requests. One that would put more than `batch_queue` requests into the queue fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = Mapping[str, Any]


@dataclass
class BatchDesk:
    """What was uploaded and what became of it."""

    answer: Callable[[bytes], tuple[int, Json]]
    """status and body for the body of one request"""
    latency: float = 0.0
    queue: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def keep(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files):06d}"
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": len(content), "purpose": "batch", "created_at": int(time.time())}

    def begin(self, wanted: Json) -> dict[str, Any]:
        """Raises ValueError for one that makes no sense."""
        name = wanted.get("input_file_id")
        if name not in self.files:
            raise ValueError(f"No such File object: {name}")
        if wanted.get("endpoint") != "/v1/chat/completions" or wanted.get("completion_window") != "24h":
            raise ValueError("endpoint must be /v1/chat/completions, and completion_window 24h.")
        lines = self.files[name].splitlines()
        batch: dict[str, Any] = {
            "id": f"batch_{len(self.batches):06d}", "object": "batch", "endpoint": wanted["endpoint"],
            "input_file_id": name, "completion_window": "24h", "status": "in_progress", "created_at": int(time.time()),
            "output_file_id": None, "error_file_id": None, "errors": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }  # fmt: skip
        queued = sum(b["request_counts"]["total"] for b in self.batches.values() if b["status"] == "in_progress")
        self.batches[batch["id"]] = batch
        if self.queue is not None and queued + len(lines) > self.queue:
            told = {"code": "token_limit_exceeded", "message": f"Enqueued request limit reached: {self.queue}."}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [told]}}
        else:
            task = asyncio.create_task(self._work(batch, lines))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return batch

    async def _work(self, batch: dict[str, Any], lines: list[bytes]) -> None:
        await asyncio.sleep(self.latency)
        counts = batch["request_counts"]
        answered: list[str] = []
        refused: list[str] = []
        for line in lines:
            if batch["status"] != "in_progress":
                break
            request = json.loads(line)
            status, body = self.answer(json.dumps(request["body"]).encode())
            response = {"status_code": status, "request_id": f"req-{request['custom_id']}", "body": body}
            row = json.dumps({"id": "", "custom_id": request["custom_id"], "response": response, "error": None})
            (answered if status == 200 else refused).append(row)
            counts["completed" if status == 200 else "failed"] += 1
            await asyncio.sleep(0)
        for name, rows in (("output_file_id", answered), ("error_file_id", refused)):
            if rows:
                batch[name] = self.keep("\n".join(rows).encode() + b"\n")["id"]
        batch["status"] = "cancelled" if batch["status"] == "cancelling" else "completed"


DESK = web.AppKey("batches", BatchDesk)


def add_batches(app: web.Application, desk: BatchDesk, allowed: Callable[[web.Request], web.Response | None]) -> None:
    """Adds the routes. `allowed` gives the refusal of a request whose key is wrong."""

    def checked(
        handler: Callable[[web.Request], Awaitable[web.Response]],
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return allowed(request) or await handler(request)

        return handle

    app[DESK] = desk
    app.router.add_post("/v1/files", checked(_upload))
    app.router.add_get("/v1/files/{name}/content", checked(_content))
    app.router.add_post("/v1/batches", checked(_begin))
    app.router.add_get("/v1/batches", checked(_list))
    app.router.add_get("/v1/batches/{name}", checked(_show))
    app.router.add_post("/v1/batches/{name}/cancel", checked(_cancel))


async def _upload(request: web.Request) -> web.Response:
    form = await request.post()
    file = form.get("file")
    if form.get("purpose") != "batch" or not isinstance(file, web.FileField):
        return _refusal(400, "A file and the purpose `batch` are needed.")
    content = file.file.read()
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            if not isinstance(row["custom_id"], str) or not isinstance(row["body"], dict):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            return _refusal(400, f"Line {number} is no request.")
    return web.json_response(request.app[DESK].keep(content))


async def _content(request: web.Request) -> web.Response:
    content = request.app[DESK].files.get(request.match_info["name"])
    return web.Response(body=content) if content is not None else _refusal(404, "No such File object.")


async def _begin(request: web.Request) -> web.Response:
    try:
        return web.json_response(request.app[DESK].begin(await request.json()))
    except ValueError as error:
        return _refusal(400, str(error))


async def _list(request: web.Request) -> web.Response:
    """The latest first, `limit` of them from after the one that `after` names."""
    all_of_them = list(reversed(request.app[DESK].batches.values()))
    names = [batch["id"] for batch in all_of_them]
    first = names.index(request.query["after"]) + 1 if request.query.get("after") in names else 0
    limit = int(request.query.get("limit", "20"))
    page = all_of_them[first : first + limit]
    return web.json_response({"object": "list", "data": page, "has_more": first + limit < len(names)})


async def _show(request: web.Request) -> web.Response:
    batch = request.app[DESK].batches.get(request.match_info["name"])
    return web.json_response(batch) if batch is not None else _refusal(404, "No such batch.")


async def _cancel(request: web.Request) -> web.Response:
    batch = request.app[DESK].batches.get(request.match_info["name"])
    if batch is None:
        return _refusal(404, "No such batch.")
    if batch["status"] == "in_progress":
        batch["status"] = "cancelling"
    return web.json_response(batch)


def _refusal(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)
