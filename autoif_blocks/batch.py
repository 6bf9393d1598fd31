"""What one batch is: the requests that it holds, who waits for them, and the note that outlives the run."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Retry
from .records import compact_json, read_json

log = logging.getLogger(__name__)

Reply = tuple[int, bytes]
"""an HTTP status and the body"""
_FORGOTTEN_AFTER = 30 * 86_400.0  # seconds; servers keep no answer longer


@dataclass
class Batch:
    """What was sent together, or is about to be."""

    file: Path | None
    lines: list[bytes] = field(default_factory=list)
    """what is to be sent; empty once it has been"""
    keys: list[str] = field(default_factory=list)
    input_file: str = ""
    id: str = ""
    waiting: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)
    replies: dict[str, Reply | Exception] | None = None
    task: asyncio.Task[None] | None = None

    def fail(self, error: BaseException) -> None:
        """Whoever waits learns of it."""
        for turn in self.waiting.values():
            if not turn.done():
                turn.set_exception(copy.copy(error))  # each grows a traceback of its own
        self.waiting.clear()

    def write_down(self, model: str, url: str) -> None:
        """Whole or not at all."""
        if self.file is not None:
            told = {"model": model, "url": url, "input_file": self.input_file, "id": self.id, "keys": self.keys}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            aside = self.file.with_suffix(".tmp")
            aside.write_text(json.dumps(told))
            aside.replace(self.file)


def read_replies(raw: bytes, batch: str, shown: Callable[[str], str] = str) -> Iterator[tuple[str, Reply | Exception]]:
    """The answers in a file. A line that says nothing counts as missing. `shown` makes words fit to be shown."""
    for line in raw.splitlines():
        try:
            row = read_json(line)
            key, response = str(row["custom_id"]), row.get("response")
            if response:
                yield key, (int(response["status_code"]), compact_json(response["body"]))
            else:
                told = row["error"].get("message") or row["error"].get("code")
                yield key, Retry(f"{batch} did not answer it: {shown(str(told)[:200])}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue


def remembered(folder: Path | None, model: str, url: str) -> Iterator[Batch]:
    """The batches of this model that earlier runs have begun, the latest last."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime) if folder is not None else []
    for file in files:
        try:
            told = json.loads(file.read_text())
            mine = (told["model"], told["url"]) == (model, url)
            batch = Batch(file, keys=list(told["keys"]), input_file=told["input_file"], id=told["id"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            log.warning("%s cannot be read: what it tells of is asked for again", file)
            continue
        if time.time() - file.stat().st_mtime > _FORGOTTEN_AFTER:
            file.unlink(missing_ok=True)
        elif mine:
            yield batch
