"""What a person sees of a run: a live table in a terminal, plain lines elsewhere, a funnel at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .accounting import Meter
from .recipe import Recipe
from .run import RunOptions
from .state import RunState, StepCounts
from .steps import Step
from .stopping import every

PLAIN_INTERVAL = 5.0  # seconds between two lines where there is no terminal
LIVE_INTERVAL = 0.5


class ConsoleListener:
    """Shows a run on standard error, so that standard output stays free."""

    def __init__(self, quiet: bool = False) -> None:
        # The stream is fixed now: while blocks run, `sys.stderr` is a log file.
        self.console = Console(file=sys.stderr, highlight=False)
        self.quiet = quiet
        self._began = time.monotonic()
        self._target = ""

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None:
        self._began = time.monotonic()
        self._target = str(recipe.output_dir)
        names = f"{steps[0].name} … {steps[-1].name}" if len(steps) > 1 else steps[0].name
        self.note(f"{recipe.name}: {len(steps)} steps ({names}) into {recipe.output_dir}/")
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
        return Group(table, Text(f"{self._elapsed()}   Ctrl-C stops; the same command continues", style="dim"))

    def _line(self, steps: list[StepCounts], rates: _Rates) -> str:
        requests = sum(step.whole.requests for step in steps)
        flow = " > ".join(f"{step.whole.given}" for step in steps)
        dropped = sum(step.whole.dropped.total() for step in steps)
        rate = rates.of("", requests)
        return f"{self._elapsed()}  out by step {flow}  dropped {dropped}  requests {requests} ({rate:.0f}/s)"

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._began)

    def finished(self, result: dict[str, Any]) -> None:
        """Prints the funnel: what came in and out of every step, and why records left."""
        if not self.quiet:
            self.console.print(funnel(result))
            totals = result["totals"]
            file = f"{self._target}/{result['steps'][-1]['file']}"
            cost = f", cost {totals['cost']:.2f}" if totals["cost"] else ""
            self.note(
                f"{result['records']} records in {file}   {duration(result['seconds'])}, "
                f"{totals['requests']} requests, {totals['hits']} completions from the cache, "
                f"{totals['prompt_tokens'] + totals['completion_tokens']} tokens{cost}"
            )


def funnel(result: dict[str, Any]) -> Table:
    """The table of a finished run, from what `run.json` holds."""
    table = Table(title=None, header_style="bold", pad_edge=False, box=None)
    table.add_column("step", no_wrap=True)
    for title in ("in", "created", "out", "dropped"):
        table.add_column(title, justify="right")
    table.add_column("why dropped", overflow="fold")
    for step in result["steps"]:
        meter = Meter.from_dict({key: value for key, value in step.items() if key in Meter().to_dict()})
        why = ", ".join(f"{reason} {count}" for reason, count in meter.dropped.most_common())
        counts = (meter.taken, meter.created, meter.given, meter.dropped.total())
        table.add_row(f"{step['number']:>2} {step['name']}", *map(str, counts), escape(why))
    return table


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
