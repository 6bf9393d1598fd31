"""What a person sees of a run: a live table in a terminal, plain lines elsewhere, a funnel at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .outputs import shards_of
from .recipe import Recipe
from .run import RunOptions
from .state import RunState, StepCounts
from .steps import Step
from .stopping import every

PLAIN_INTERVAL = 5.0  # seconds between two lines where there is no terminal
LIVE_INTERVAL = 0.5
PLAIN_WIDTH = 120  # characters of the final table where there is no terminal


class ConsoleListener:
    """Shows a run on standard error, so that standard output stays free."""

    def __init__(self, quiet: bool = False) -> None:
        # The stream is fixed now: while blocks run, `sys.stderr` is a log file.
        self.console = Console(file=sys.stderr, highlight=False)
        self.quiet = quiet
        self._began = time.monotonic()
        self._place, self._folder = "", Path()
        self._wanted: int | None = None

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None:
        self._began = time.monotonic()
        self._place, self._folder = recipe.place, recipe.output_dir
        self._wanted = recipe.target
        names = f"{steps[0].name} … {steps[-1].name}" if len(steps) > 1 else steps[0].name
        self.note(f"{recipe.name}: {len(steps)} steps ({names}) into {recipe.place}/")
        if simulated:
            self.note("The built-in simulated teacher answers: good for a try-out, not for training. For a real model:")
            self.note(f"  autoif run {recipe.path} --base-url http://HOST:8000/v1 --model NAME --output-dir DIRECTORY")

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(escape(text), soft_wrap=True)

    @contextmanager
    def watching(self, state: RunState) -> Iterator[None]:
        if self.quiet:
            yield
            return
        rates = _Rates()
        if self.console.is_terminal:
            with Live(
                console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, transient=True
            ) as live:

                def show() -> None:
                    live.update(self._table(state.read(), rates), refresh=True)

                with every(LIVE_INTERVAL, show, "autoif-progress"):
                    yield
        else:
            with every(PLAIN_INTERVAL, lambda: self.note(self._line(state.read(), rates)), "autoif-progress"):
                yield

    def _table(self, steps: list[StepCounts], rates: _Rates) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("step", no_wrap=True)
        for title in ("in", "out", "dropped", "requests", "cached", "requests/s"):
            table.add_column(title, justify="right")
        for step in steps:
            whole = step.whole
            rate = rates.of(step.name, whole.requests)
            style = "" if whole.taken or whole.created else "dim"
            cells = (whole.taken, whole.given, whole.dropped.total(), whole.requests or "", whole.hits or "")
            table.add_row(f"{step.number:>2} {step.name}", *map(str, cells), f"{rate:.0f}" if rate else "", style=style)
        return Group(
            table,
            Text(f"{self._elapsed()}{self._accepted(steps)}   Ctrl-C stops; the same command continues", style="dim"),
        )

    def _line(self, steps: list[StepCounts], rates: _Rates) -> str:
        requests = sum(step.whole.requests for step in steps)
        flow = " > ".join(f"{step.whole.given}" for step in steps)
        dropped = sum(step.whole.dropped.total() for step in steps)
        rate = rates.of("", requests)
        head = f"{self._elapsed()}{self._accepted(steps)}"
        return f"{head}  out by step {flow}  dropped {dropped}  requests {requests} ({rate:.0f}/s)"

    def _accepted(self, steps: list[StepCounts]) -> str:
        return f"  accepted {steps[-1].whole.given} of {self._wanted}" if self._wanted else ""

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._began)

    def finished(self, result: dict[str, Any]) -> None:
        """Prints what came in and out of every step, what it cost, and why records left."""
        if self.quiet:
            return
        head, *lines = funnel(result, self.console.width if self.console.is_terminal else PLAIN_WIDTH)
        self.console.print(escape(head), style="bold", soft_wrap=True)
        for line in lines:
            self.note(line)
        everything = result["all_commands"]
        file = result["steps"][-1]["file"]
        if shards_of(self._folder / file):
            file = f"{Path(file).stem}/shard_*.jsonl"
        enough = f" (target {self._wanted}; all that were accepted are kept)" if self._wanted else ""
        where = f"{self._place}/{file}{enough}"
        self.note(f"{result['records']} records in {where}   {_spent(result['totals'], result['seconds'])}")
        if everything["commands"] > 1:
            self.note(f"over all {everything['commands']} commands: {_spent(everything, everything['seconds'])}")


def _spent(totals: dict[str, Any], seconds: float) -> str:
    cost = f", cost {totals['cost']:.2f}" if totals["cost"] else ""
    return (
        f"{duration(seconds)}, {totals['requests']} requests, {totals['hits']} completions from the cache, "
        f"{totals['prompt_tokens'] + totals['completion_tokens']} tokens{cost}"
    )


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
        " ".join([_cut(name, room).ljust(room), *(cell.rjust(size) for cell, size in zip(row, widths, strict=True))])
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
    return [*counts, *(times if answered else ["", ""]), _short(step["busy"]) if answered else ""]


def compact(number: int) -> str:
    """At most five characters: `99999`, `123k`, `4.56M`, `7.89G`."""
    if number < 100_000:
        return str(number)
    units = (("k", 1e3), ("M", 1e6), ("G", 1e9))
    unit, size = next((pair for pair in units if number < 999.5 * pair[1]), ("T", 1e12))
    return f"{number / size:.3g}{unit}"


def _short(seconds: float) -> str:
    """`0.3s`, `42s`, `3m20`, `2h05`, `120h`."""
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}"
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes < 6000 else f"{minutes // 60}h"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Rates:
    """Requests per second over the last look or two, by name."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int, float]] = {}

    def of(self, name: str, count: int) -> float:
        now = time.monotonic()
        then, before, rate = self._last.get(name, (now, count, 0.0))
        if now > then:
            fresh = (count - before) / (now - then)
            rate = fresh if rate == 0 else 0.5 * rate + 0.5 * fresh
        self._last[name] = (now, count, rate)
        return rate


def show(recipe: Recipe, options: RunOptions, listener: ConsoleListener) -> dict[str, Any]:
    """Runs a recipe in front of a person's eyes."""
    result = recipe.run(options)
    listener.finished(result)
    return result
