"""The work and its measurement, for every driver: it runs in the peer's own environment, so it needs Python alone.

    python peer_NAME.py OUT URL SLOTS RECORDS [VARIANT]

A driver turns a `Job` into rows; `measured` runs it and writes what came out and what it cost to OUT.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MODEL = "simulated-teacher"
STEPS = {
    "a": "Tell me about {number}.",
    "b": "Tell me more about {number}: {a}",
    "c": "Sum up what you know of {number}: {b}",
}
"""By the field that an answer becomes; a prompt is a template for `str.format`."""

Row = dict[str, str]


@dataclass(frozen=True)
class Job:
    """Ask three times for each number; `rows` are what a driver starts from and gives back with `a`, `b` and `c`."""

    url: str
    """ends in /v1"""
    slots: int
    """requests in flight"""
    rows: list[Row]
    variant: str = ""
    """a way to use the peer other than its driver's first"""


def jinja(prompt: str) -> str:
    """The prompt as a template for jinja2."""
    return prompt.replace("{", "{{ ").replace("}", " }}")


def seconds_of_cpu() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measured(run: Callable[[Job], list[Row]]) -> None:
    """Run for two records of its own, so that what is imported or compiled at first use is not counted; then run."""
    out, url, slots, records, *variant = sys.argv[1:]
    numbers = [{"number": str(number)} for number in range(int(records) + 2)]
    run(Job(url, int(slots), numbers[int(records) :], *variant))
    wall, cpu = time.perf_counter(), seconds_of_cpu()
    rows = run(Job(url, int(slots), numbers[: int(records)], *variant))
    wall, cpu = time.perf_counter() - wall, seconds_of_cpu() - cpu
    Path(out).write_text(json.dumps({"rows": rows, "wall": wall, "cpu": cpu}))
