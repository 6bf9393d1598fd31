"""A run in lines: for people without a terminal, and as JSON for programs."""

from __future__ import annotations

from typing import Any

from ..plain import plain
from .figures import Figures
from .table import duration


def line(figures: Figures) -> str:
    """All in one line."""
    flow = " > ".join(f"{step.meter.given}" for step in figures.steps)
    rate = sum(step.per_second for step in figures.steps)
    return "  ".join(
        [
            duration(figures.seconds), *headline(figures), f"out by step {flow}", f"dropped {figures.dropped}",
            f"requests {figures.requests} ({rate:.0f}/s)", *budget_left(figures),
        ]
    )  # fmt: skip


def headline(figures: Figures) -> list[str]:
    """How much is done, and how long it will take."""
    accepted = [f"accepted {figures.accepted[0]} of {figures.accepted[1]}"] if figures.accepted else []
    share = figures.progress.share
    done = [] if accepted else [f"{int(100 * share)}%" if share is not None else "?%"]
    left = figures.progress.left
    return [*accepted, *done, f"ETA {'?' if left is None else about(left)}"]


def about(seconds: float) -> str:
    """A time that is an estimate: `about 5 s`, `about 12 min`, `about 2 h 10 min`."""
    if seconds < 87.5:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = max(2, round(seconds / 60))
    if minutes < 95:
        return f"about {minutes} min"
    hours, tens = divmod(round(minutes / 10), 6)
    return f"about {hours} h {tens}0 min" if tens else f"about {hours} h"


def one_row(text: str) -> str:
    """Text without line breaks, and without what a terminal would obey: models' and servers' words stand in it."""
    return plain(text).replace("\n", " ").replace("\t", " ")


def budget_left(figures: Figures) -> list[str]:
    """What is left of each limit."""
    shown = [f"{_number(left)} of {_number(limit)} {name}" for name, (left, limit) in figures.budget.items()]
    return [f"budget left: {', '.join(shown)}"] if shown else []


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def row(figures: Figures) -> dict[str, Any]:
    """The same numbers as plain data: one line of `--json`."""
    return {
        "seconds": round(figures.seconds, 1),
        "share": _rounded(figures.progress.share, 4), "eta": _rounded(figures.progress.left, 1),
        **({"accepted": figures.accepted[0], "target": figures.accepted[1]} if figures.accepted else {}),
        **({"budget_left": {name: round(left, 4) for name, (left, _) in figures.budget.items()}} if figures.budget
           else {}),
        "steps": [
            {
                "number": step.number, "name": step.name, "in": step.meter.taken, "created": step.meter.created,
                "out": step.meter.given, "dropped": dict(step.meter.dropped), "in_flight": step.meter.in_flight,
                "requests": step.meter.requests, "requests_per_second": round(step.per_second, 2),
                "tokens_per_second": round(step.tokens_per_second, 1), "cost": round(step.meter.cost, 6),
                "hits": step.meter.hits, "hit_rate": _rounded(step.hit_rate, 4),
            }
            for step in figures.steps
        ],
        "servers": [
            {
                "model": model, "url": health.url, "in_flight": health.in_flight, "limit": health.limit,
                "ceiling": health.ceiling, "resting_until": round(health.resting_until, 1) or None,
                "dead": health.dead or None,
            }
            for model, health in figures.servers
        ],
        "warning": figures.warning and {"at": round(figures.warning[0], 1), "text": figures.warning[1]},
    }  # fmt: skip


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
