"""Hedging: a straggler is asked for a second time, and the first of two answers is taken (Dean and Barroso 2013)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_answer(first: asyncio.Future[T], second: Coroutine[Any, Any, T]) -> T:
    """The first answer of two; if one fails, the other's. The second is cancelled where it is not needed any more."""
    other = asyncio.ensure_future(second)
    try:
        await asyncio.wait({first, other}, return_when=asyncio.FIRST_COMPLETED)
        winner, loser = (first, other) if first.done() else (other, first)
        if winner.exception() is None:
            return winner.result()
        await asyncio.wait({loser})
        return (loser if loser.exception() is None else first).result()
    finally:
        other.cancel()
