"""What a chat-completions server says, read leniently: its choices, its usage, its reasons for refusing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import Retry
from .records import compact_json, read_json

_MOST_CHARACTERS_A_TOKEN = 7  # prose has four to five
_MOST_TOKENS = 10**9  # that a server may claim for one answer


class NoModel(Retry):
    """What came is no answer of a model server: a web page, say. It may be on its way up, or the address is wrong."""

    advice = "does base_url lead to an OpenAI-compatible server, and end in /v1?"


@dataclass(frozen=True)
class Completion:
    """One choice of an answer, as the model wrote it."""

    text: str
    finish_reason: str = "stop"


def kept(completion: Completion) -> str:
    """A completion as the cache keeps it."""
    return compact_json([completion.text, completion.finish_reason]).decode()


def recalled(value: str | None) -> Completion | None:
    """The inverse of `kept`; a cache from elsewhere may hold anything, of which nothing is made."""
    try:
        found: Any = read_json(value) if value is not None else None
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, list) and len(found) == 2 and all(isinstance(part, str) for part in found)
    return Completion(*found) if whole else None


@dataclass(frozen=True)
class Answer:
    """The body of a 200."""

    completions: Mapping[int, Completion]
    """by their place in the request: a server may leave some out"""
    prompt_tokens: int
    completion_tokens: int


def read_answer(raw: bytes, count: int) -> Answer:
    """The choices that can be read, at most `count`.

    A choice's `index` is its place; of servers that omit it, or give the same to all, the order counts.

    Raises:
        NoModel: the body is a web page, or JSON of another kind.
        Retry: it is cut off, no JSON, or has no choice that can be read.
    """
    try:
        answer = read_json(raw)
        choices = answer["choices"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        foreign = isinstance(error, KeyError) and "error" not in answer
        kind = NoModel if foreign or raw.lstrip()[:1] == b"<" else Retry
        raise kind(f"unreadable answer ({type(error).__name__}): {said(raw)}") from error
    found: list[tuple[Any, Completion]] = []
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            reason = str(choice.get("finish_reason") or "stop")
            found.append((choice.get("index"), Completion(_text(message.get("content")), reason)))
    if not found:
        raise Retry(f"an answer without choices: {said(raw)}")
    usage = answer.get("usage")
    written = _tokens(usage, "completion_tokens")
    if len(found) > 1:
        characters = sum(len(completion.text) for _, completion in found)
        timings = answer.get("timings")
        of_one = isinstance(timings, dict) and _tokens(timings, "predicted_n") == written > 0
        if of_one or characters > _MOST_CHARACTERS_A_TOKEN * written:
            written *= len(found)  # llama.cpp's server counts one choice only, and says how long that one took
    return Answer(_placed(found, count), _tokens(usage, "prompt_tokens"), written)


def _placed(found: list[tuple[Any, Completion]], count: int) -> dict[int, Completion]:
    if count == 1 == len(found):
        return {0: found[0][1]}
    indexes = [index for index, _ in found]
    if all(type(index) is int for index in indexes) and len(set(indexes)) == len(indexes):
        found.sort(key=lambda pair: pair[0])
        if 0 <= min(indexes) <= max(indexes) < count:
            return dict(found)
    return {place: completion for place, (_, completion) in enumerate(found[:count])}


def _text(content: object) -> str:
    """A message's content, which some servers send in typed parts. A file cannot hold a lone surrogate, JSON can."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _tokens(usage: object, name: str) -> int:
    try:
        return min(_MOST_TOKENS, max(0, int(usage.get(name) or 0))) if isinstance(usage, dict) else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def said(raw: bytes) -> str:
    """The server's own words, in one line; of a web page, its title."""
    try:
        answer = read_json(raw)
        error = answer.get("error", answer)
        words = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        words = raw[:10_000].decode("utf-8", "replace")
        if words.lstrip().startswith("<"):
            title = re.search(r"<title[^>]*>([^<]*)", words, re.IGNORECASE)
            words = f"a web page, '{title[1].strip()}'" if title else "a web page"
    return " ".join(words[:10_000].split())


def seconds_to_wait(retry_after: str | None) -> float:
    """`Retry-After`, which is a number of seconds or a date; 0 if there is none that makes sense."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(retry_after)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
