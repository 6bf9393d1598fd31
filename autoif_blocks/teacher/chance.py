"""Randomness that follows from content: the same in every process, whatever ran before."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Rates:
    """How often completions are unusable, hostile or mistaken. Part of the content, unlike the server's faults."""

    malformed: float = 0.05
    hostile: float = 0.025
    wrong: float = 0.3
    wrong_output: float = 0.07
    misread: float = 0.0
    vacuous: float = 0.0


def digest(*parts: str) -> int:
    """A number that depends on the parts alone."""
    state = blake2b(digest_size=8)
    for part in parts:
        state.update(part.encode("utf-8", "surrogatepass"))
        state.update(b"\0")
    return int.from_bytes(state.digest(), "big")


def share(*parts: str) -> float:
    """A number from 0 up to 1 that depends on the parts alone."""
    return digest(*parts) / 2**64
