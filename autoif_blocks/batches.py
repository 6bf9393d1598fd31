"""A model that answers by the batch: requests go out together as a file, and come back within a day at half the price.

This is OpenAI's Batch API: `POST /files` takes a JSONL file with a request a line, `POST /batches` begins, `GET
/batches/ID` says how far it is, `GET /files/ID/content` has the answers. A request is known by the hash of its body.
Which requests a batch holds is written down before it begins: a run that was killed finds its batch again instead of
paying for another.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from .batch import Batch, Reply, read_replies, remembered
from .errors import DropRecord, ModelUnavailable, Retry, Unfinished
from .limits import Sleep
from .models import ModelConfig
from .records import compact_json, content_hash, read_json

log = logging.getLogger(__name__)

Call = Callable[..., Awaitable[tuple[int, Mapping[str, Any], bytes]]]
_ENDED = {"completed", "failed", "expired", "cancelled"}
_MOST_BYTES = 100_000_000  # of a file; OpenAI takes 200 MB
_MOST_PAGES = 1000  # of the list of batches, a hundred each
_LONGEST_PAUSE = 600.0  # seconds that a server may wish for
_ID = re.compile(r"[\w.:-]*\w[\w.:-]*", re.ASCII)  # stands in addresses, files and logs


class Batches:
    """Gathers requests, sends them, waits for the answers. Made, used and closed on one event loop."""

    def __init__(
        self, config: ModelConfig, url: str, call: Call, failure: Callable[..., Exception],
        shown: Callable[[str], str], sleep: Sleep, folder: Path | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url: of the server, up to and including /v1.
            call: sends a request: `call(method, path, data, headers)`, and gives status, headers and body.
            failure: what an answer other than 200 means: `failure(status, headers, body)`.
            shown: makes a server's words fit to be shown.
            folder: where it is written down what has been sent; None: nowhere, then a killed run pays again.
        """
        self._config = config
        self._url = url
        self._call = call
        self._failure = failure
        self._told = shown
        self._sleep = sleep
        self._folder = folder
        self._next = Batch(None)
        self._bytes = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._sent: dict[str, Batch] = {}
        for batch in remembered(folder, config.model, url):
            self._sent.update(dict.fromkeys(batch.keys, batch))

    async def ask(self, payload: bytes) -> Reply:
        """The answer to a request, whenever it comes.

        Raises:
            Retry: there is none; a further try belongs to another batch, or looks after this one again.
            ModelUnavailable: the server does not take batches, or not this one.
            Unfinished: the run is stopping. What was sent is taken up by the next.
        """
        if self._stopped:
            raise Unfinished
        # Without seeds the samples of a prompt are asked in the same words, and each has an answer of its own.
        for copy in itertools.count():
            key = content_hash(payload.decode(), copy, size=16)
            batch = self._sent.get(key)
            if batch is None or key not in batch.waiting:
                break
        if batch is not None and batch.replies is not None:
            return self._taken(batch, key)
        turn: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if batch is None:
            self._gather(key, payload, turn)
        else:
            batch.waiting[key] = turn
            self._follow(batch)
        return await turn

    def stop(self) -> None:
        """Nothing new will be sent, and nothing waited for."""
        self._stopped = True
        begun = {batch.id for batch in self._sent.values() if batch.id and batch.waiting}
        for batch in {id(batch): batch for batch in (self._next, *self._sent.values())}.values():
            batch.fail(Unfinished())
        if begun:
            log.warning("%s goes on at the server: the same command takes its answers", _listed("batch", sorted(begun)))

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = [batch.task for batch in self._sent.values() if batch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _gather(self, key: str, payload: bytes, turn: asyncio.Future[Reply]) -> None:
        head = compact_json({"custom_id": key, "method": "POST", "url": "/v1/chat/completions"})
        line = head[:-1] + b',"body":' + payload + b"}\n"
        if self._bytes + len(line) > _MOST_BYTES:
            self._send_off()
        self._next.keys.append(key)
        self._next.lines.append(line)
        self._next.waiting[key] = turn
        self._sent[key] = self._next
        self._bytes += len(line)
        self._last = time.monotonic()
        if len(self._next.keys) >= self._config.batch_requests:
            self._send_off()
        elif self._timer is None:
            self._wake_after(self._config.batch_wait)

    def _wake_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Sends what there is once no more has come for a while."""
        self._timer = None
        quiet = time.monotonic() - self._last
        if not self._next.keys:
            return
        if quiet < self._config.batch_wait:
            self._wake_after(self._config.batch_wait - quiet)
        else:
            self._send_off()

    def _send_off(self) -> None:
        batch, self._next, self._bytes = self._next, Batch(None), 0
        if batch.keys and not self._stopped:
            if self._folder is not None:
                batch.file = self._folder / f"{content_hash(*batch.keys, time.time(), size=8)}.json"
            self._follow(batch)

    def _follow(self, batch: Batch) -> None:
        if batch is not self._next and (batch.task is None or batch.task.done()):
            batch.task = asyncio.create_task(self._carry(batch))

    async def _carry(self, batch: Batch) -> None:
        """Brings a batch to its end, from wherever it is; whoever waits for it learns of every failure."""
        try:
            while True:
                if not batch.id:
                    await self._begin(batch)
                state = await self._ended(batch)
                if not self._queue_is_full(batch, state):
                    break
                batch.id = ""
                await self._sleep(self._config.batch_poll)
            batch.replies = await self._replies(batch, state)
        except Unfinished:  # whoever waits has been told
            return
        except Exception as error:
            if not batch.input_file or isinstance(error, _Gone):
                self._forget(batch)
            batch.fail(error)
            return
        for key in list(batch.waiting):
            turn = batch.waiting.pop(key)
            try:
                reply = self._taken(batch, key)
            except Exception as error:
                if not turn.done():
                    turn.set_exception(error)
            else:
                if not turn.done():
                    turn.set_result(reply)

    def _queue_is_full(self, batch: Batch, state: dict[str, Any]) -> bool:
        """Whether it failed since others of ours fill the account's queue: when they have ended, there is room."""
        others = any(other is not batch and other.id and other.replies is None for other in self._sent.values())
        return others and state["status"] == "failed" and _first_error(state).get("code") == "token_limit_exceeded"

    def _taken(self, batch: Batch, key: str) -> Reply:
        assert batch.replies is not None
        del self._sent[key]  # whoever asks the same again wants another answer
        reply = batch.replies.pop(key, Retry(f"{batch.id} ended without an answer to it"))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _forget(self, batch: Batch) -> None:
        for key in batch.keys:
            self._sent.pop(key, None)
        if batch.file is not None:
            batch.file.unlink(missing_ok=True)

    async def _begin(self, batch: Batch) -> None:
        remembered = batch.input_file  # by an earlier run, or an attempt whose answer was lost
        if not batch.input_file:
            form = aiohttp.MultipartWriter("form-data")
            form.append("batch").set_content_disposition("form-data", name="purpose")
            part = form.append(b"".join(batch.lines), {"Content-Type": "application/jsonl"})
            part.set_content_disposition("form-data", name="file", filename="requests.jsonl")
            sent = await self._json("POST", "/files", form, {"Content-Type": form.headers["Content-Type"]})
            batch.input_file, batch.lines = _id(sent.get("id")), []
            batch.write_down(self._config.model, self._url)
        elif (found := await self._begun_before(batch)) is not None:
            batch.id = found
        if not batch.id:
            wanted = {"input_file_id": batch.input_file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            begun = await self._json("POST", "/batches", compact_json(wanted), known=remembered)
            batch.id = _id(begun.get("id"))
        batch.write_down(self._config.model, self._url)
        log.info("%s: %d requests sent as %s", self._config.model, len(batch.keys), batch.id)

    async def _begun_before(self, batch: Batch) -> str | None:
        after = ""
        for _ in range(_MOST_PAGES):
            page = await self._json("GET", f"/batches?limit=100{after}")
            listed = page.get("data")
            if not isinstance(listed, list) or not all(isinstance(known, dict) for known in listed):
                raise Retry("unreadable list of batches")
            for known in listed:
                if known.get("input_file_id") == batch.input_file and known.get("status") != "failed":
                    return _id(known.get("id"))
            if not page.get("has_more") or not listed:
                return None
            after = f"&after={_id(listed[-1].get('id'))}"
        raise Retry("the list of batches does not end")

    async def _ended(self, batch: Batch) -> dict[str, Any]:
        while True:
            state: dict[str, Any] = await self._patiently(f"/batches/{batch.id}", batch.id)
            if str(state.get("status")) in _ENDED:
                log.info("%s: %s %s", self._config.model, batch.id, state["status"])
                return state
            await self._sleep(self._config.batch_poll)

    async def _replies(self, batch: Batch, state: dict[str, Any]) -> dict[str, Reply | Exception]:
        found: dict[str, Reply | Exception] = {}
        for name in ("output_file_id", "error_file_id"):
            if state.get(name):
                path = f"/files/{_id(state[name])}/content"
                raw = await self._patiently(path, batch.id, whole=False)
                found.update(read_replies(raw, batch.id, self._told))
        if not found and state["status"] == "failed":
            told = self._told(str(_first_error(state).get("message") or "no reason given"))
            self._forget(batch)
            raise ModelUnavailable(f"{self._config.model} at {self._url}: {batch.id} failed: {told}")
        missing = [key for key in batch.keys if key not in found and key in batch.waiting]
        if state["status"] == "cancelled" and missing:
            error = ModelUnavailable(
                f"{self._config.model} at {self._url}: {batch.id} was cancelled with {len(missing)} requests "
                "unanswered. What is finished is kept: run again to send them in a new one"
            )
            found.update(dict.fromkeys(missing, error))
            if batch.file is not None:
                batch.file.unlink(missing_ok=True)
        return found

    async def _patiently(self, path: str, batch: str, whole: bool = True) -> Any:
        """What may be asked again and again: in a day of waiting a server is away now and then."""
        for attempt in range(self._config.max_retries + 1):
            try:
                return await (self._json("GET", path, known=batch) if whole else self._get("GET", path, known=batch))
            except _Gone:
                raise
            except Retry as failure:
                if attempt == self._config.max_retries:
                    raise
                log.info("%s: asking for %s again: %s", self._config.model, path, failure.reason)
                wished = min(failure.after or 0.0, _LONGEST_PAUSE)
                await self._sleep(max(self._config.batch_poll, wished))

    async def _json(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None, known: str = ""
    ) -> dict[str, Any]:
        raw = await self._get(method, path, data, headers, known)
        try:
            answer = read_json(raw)
            if not isinstance(answer, dict) or ("id" not in answer and "data" not in answer):
                raise ValueError("no object with an id")
        except (ValueError, RecursionError) as error:
            raise Retry(f"unreadable answer to {method} {path}: {error}") from error
        return dict(answer)

    async def _get(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None, known: str = ""
    ) -> bytes:
        status, answered, raw = await self._call(method, path, data, headers)
        if status == 200:
            return raw
        if status in (400, 404, 405, 501):
            if known and status in (400, 404):
                raise _Gone(f"the server knows no {known} any more")
            if status != 400:
                raise ModelUnavailable(
                    f"{self._config.model} at {self._url}: it has no Batch API (HTTP {status} for {path}): "
                    "leave `mode: batch` out"
                )
        failure = self._failure(status, answered, raw)
        if isinstance(failure, DropRecord):  # that was about the batch, not about a record
            raise ModelUnavailable(f"{self._config.model} at {self._url}: {failure.detail}")
        raise failure


class _Gone(Retry):
    """The server has nothing of the batch, nor will have: its requests need another."""


def _id(value: object) -> str:
    """A name that the server gave. Raises Retry if it is none: a path, say, or something that steers a terminal."""
    if not isinstance(value, str) or len(value) > 200 or not _ID.fullmatch(value):
        raise Retry("the server names a batch or a file by what is no name")
    return value


def _first_error(state: dict[str, Any]) -> dict[str, Any]:
    """Why a batch failed, if it says so."""
    errors = state.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else None
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _listed(what: str, names: list[str]) -> str:
    return f"{what} {names[0]}" if len(names) == 1 else f"{len(names)} {what}es"
