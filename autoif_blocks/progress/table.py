"""The table at the end of a run, and numbers short enough for tables."""

from __future__ import annotations

from typing import Any

# Two titles of each column: the second is for narrow terminals.
_COLUMNS = (
    ("in", "in"), ("out", "out"), ("dropped", "drop"), ("requests", "asked"), ("retries", "again"), ("hits", "hits"),
    ("tokens", "tokens"), ("cost", "cost"), ("p50", "p50"), ("p99", "p99"), ("busy", "busy"),
)  # fmt: skip
_WIDE = 100


def funnel(result: dict[str, Any], width: int) -> list[str]:
    """The lines of a finished run, from what `run.json` holds: a table, and why records were dropped."""
    steps = result["steps"]
    priced = any(step["cost"] for step in steps)
    rows = [[wide if width >= _WIDE else narrow for wide, narrow in _COLUMNS], *map(_cells, steps)]
    cost = [title for title, _ in _COLUMNS].index("cost")
    rows = [row if priced else row[:cost] + row[cost + 1 :] for row in rows]
    names = ["step", *(f"{step['number']:>2} {step['name']}" for step in steps)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(8, min(max(map(len, names)), width - sum(widths) - len(widths)))
    lines = [
        " ".join([cut(name, room).ljust(room), *(cell.rjust(size) for cell, size in zip(row, widths, strict=True))])
        for name, row in zip(names, rows, strict=True)
    ]
    for step in steps:
        if step["dropped"]:
            reasons = sorted(step["dropped"].items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"   {step['name']} dropped: {', '.join(f'{reason} {count}' for reason, count in reasons)}")
    return [line.rstrip() for line in lines]


def _cells(step: dict[str, Any]) -> list[str]:
    """Steps that asked nobody show nothing of it."""
    counts = [compact(step["in"]), compact(step["out"]), compact(sum(step["dropped"].values()))]
    if not step["requests"] and not step["hits"]:
        return [*counts, *[""] * 8]
    counts += [compact(step[name]) for name in ("requests", "retries", "hits")]
    counts += [compact(step["prompt_tokens"] + step["completion_tokens"]), f"{step['cost']:.2f}"]
    answered = bool(step["busy"])
    times = [f"{step[name]:.2f}s" if step[name] < 10 else f"{step[name]:.0f}s" for name in ("p50", "p99")]
    return [*counts, *(times if answered else ["", ""]), short(step["busy"]) if answered else ""]


def compact(number: int) -> str:
    """At most five characters: `99999`, `123k`, `4.56M`, `7.89G`."""
    if number < 100_000:
        return str(number)
    units = (("k", 1e3), ("M", 1e6), ("G", 1e9))
    unit, size = next((pair for pair in units if number < 999.5 * pair[1]), ("T", 1e12))
    return f"{number / size:.3g}{unit}"


def short(seconds: float) -> str:
    """`0.3s`, `42s`, `3m20`, `2h05`, `120h`."""
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}"
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes < 6000 else f"{minutes // 60}h"


def cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
