"""What a person, or a program, sees of a run: a live view in a terminal, lines elsewhere, a funnel at the end.

Everything goes to standard error, so that standard output stays free; with `--json` it is lines on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.markup import escape

from ..errors import AutoIFError, BudgetSpent, TargetMissed
from ..outputs import shards_of
from ..plain import plain
from ..recipe import Recipe
from ..run import RunOptions
from ..state import RunState
from ..steps import Step
from . import lines
from .figures import Figures, Watch
from .table import compact, duration, funnel
from .view import frame

__all__ = ["ConsoleListener", "JsonListener", "compact", "duration", "funnel", "show"]

PLAIN_INTERVAL = 5.0  # seconds between two lines where there is no terminal
LIVE_INTERVAL = 0.5
PLAIN_WIDTH = 120  # characters of the final table where there is no terminal
SHARE = 0.01  # of a processor's time that a view takes at most: one that costs more is shown less often
_RESIZE = 0.1  # seconds between two looks at the terminal's size
_KEPT = 50  # notes that are said again when the screen is drawn anew


class ConsoleListener:
    """Shows a run on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        # The stream is fixed now: while blocks run, `sys.stderr` is a log file.
        self.console = Console(file=sys.stderr, highlight=False)
        self.quiet = quiet
        self.recipe: Recipe | None = None
        self.steps: list[Step] = []
        self.limit: int | None = None
        """as `RunOptions.limit`"""
        self.spent = 0.0
        """seconds of the processor's time that the view has taken, its thread's own"""
        self._place, self._folder = "", Path()
        self._wanted: int | None = None
        self._notes: list[str] = []
        self._live: Live | None = None
        self._size: ConsoleDimensions | None = None

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None:
        self.recipe, self.steps = recipe, steps
        self._place, self._folder = recipe.place, recipe.output_dir
        self._wanted = recipe.target
        dots = "…" if self._utf8 else "..."
        names = f"{steps[0].name} {dots} {steps[-1].name}" if len(steps) > 1 else steps[0].name
        self.note(f"{recipe.name}: {len(steps)} steps ({names}) into {recipe.place}/")
        if simulated:
            self.note("The built-in simulated teacher answers: good for a try-out, not for training. For a real model:")
            self.note(f"  autoif run {recipe.path} --base-url http://HOST:8000/v1 --model NAME --output-dir DIRECTORY")

    def note(self, text: str) -> None:
        if not self.quiet:
            text = plain(text)
            self._notes = [*self._notes[1 - _KEPT :], text]
            self.console.print(escape(text), soft_wrap=True)

    @contextmanager
    def watching(self, state: RunState) -> Iterator[None]:
        if self.quiet:
            yield
            return
        watch = Watch(state, self.recipe, self.steps, self.limit)
        if not self._lively:
            told: tuple[float, str] | None = None

            def tell() -> None:
                nonlocal told
                figures = watch.look()
                self.note(lines.line(figures))
                if figures.warning is not None and figures.warning != told:
                    told = figures.warning
                    self.note(f"warning: {lines.one_row(told[1])}")

            with self._paced(tell, PLAIN_INTERVAL):
                yield
            return
        with (
            Live(
                console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
                transient=True, vertical_overflow="crop",
            ) as self._live,
            self._paced(lambda: self._draw(watch.look()), LIVE_INTERVAL, self._resized),
        ):  # fmt: skip
            yield
        self._live = None

    @property
    def _utf8(self) -> bool:
        return self.console.encoding.startswith("utf")

    @property
    def _lively(self) -> bool:
        """Whether there is a terminal that can draw over what it has drawn."""
        return self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty()

    def _draw(self, figures: Figures) -> None:
        assert self._live is not None
        width, height = self._size = self.console.size
        # One column and one line are left free: some terminals break a line that is just full.
        self._live.update(frame(figures, max(1, width - 1), max(1, height - 1), self._utf8), refresh=True)

    def _resized(self) -> bool:
        """Whether the terminal has another size than a frame was drawn for; then all is drawn anew. Where the old frame
        is now, only the terminal knows: some break its lines, some cut them."""
        if self._size in (None, self.console.size):
            return False
        self._size = self.console.size
        self.console.clear()
        for text in self._notes:
            self.console.print(escape(text), soft_wrap=True)
        return True

    @contextmanager
    def _paced(self, show: Callable[[], None], interval: float, early: Callable[[], bool] = bool) -> Iterator[None]:
        """Calls `show` every so often from a thread of its own, less often where that would take too much, and at once
        when `early` says so. A terminal or pipe that is gone ends the view, not the run."""
        ending = threading.Event()

        def loop() -> None:
            due = time.monotonic() + min(interval, LIVE_INTERVAL if self._live else interval)
            with contextlib.suppress(OSError, ValueError):
                while not ending.wait(_RESIZE if self._live else max(0.0, due - time.monotonic())):
                    if not early() and time.monotonic() < due:
                        continue
                    before = time.thread_time()
                    show()
                    due = time.monotonic() + max(interval, (time.thread_time() - before) / SHARE)
                    self.spent = time.thread_time()

        thread = threading.Thread(target=loop, name="autoif-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

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

    def failed(self, error: BaseException) -> None:
        """Whoever called says so."""


class JsonListener(ConsoleListener):
    """Tells of a run in JSON, a line each on standard output. `event` says of what:

    `started` (recipe, steps, output_dir), `note` (text), `progress` (what `lines.row` gives), and at last `ended`
    (state: `completed`, `stopped` or `failed`; and the failure, or what `run.json` says of all).
    """

    def __init__(self) -> None:
        super().__init__()
        self._file = sys.stdout

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None:
        self.recipe, self.steps = recipe, steps
        names = [step.name for step in steps]
        self._say("started", recipe=recipe.name, steps=names, output_dir=recipe.place, simulated=simulated)

    def note(self, text: str) -> None:
        self._say("note", text=text)

    @contextmanager
    def watching(self, state: RunState) -> Iterator[None]:
        watch = Watch(state, self.recipe, self.steps, self.limit)

        def tell() -> None:
            self._say("progress", **lines.row(watch.look()))

        try:
            with self._paced(tell, PLAIN_INTERVAL):
                yield
        finally:
            tell()

    def finished(self, result: dict[str, Any]) -> None:
        names = ("state", "records", "seconds", "totals", "all_commands")
        self._say("ended", **{name: result[name] for name in names})

    def failed(self, error: BaseException) -> None:
        stopped = isinstance(error, (KeyboardInterrupt, BudgetSpent, TargetMissed))
        self._say("ended", state="stopped" if stopped else "failed", failure=str(error) or None)

    def _say(self, event: str, **values: Any) -> None:
        if self.quiet:
            return
        try:
            print(json.dumps({"event": event, **values}), file=self._file, flush=True)
        except OSError:
            # Whoever read has gone. The run goes on, and Python shall not fail on what it still holds at its end.
            self.quiet = True
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())


def _spent(totals: dict[str, Any], seconds: float) -> str:
    cost = f", cost {totals['cost']:.2f}" if totals["cost"] else ""
    return (
        f"{duration(seconds)}, {totals['requests']} requests, {totals['hits']} completions from the cache, "
        f"{totals['prompt_tokens'] + totals['completion_tokens']} tokens{cost}"
    )


def show(recipe: Recipe, options: RunOptions, listener: ConsoleListener) -> dict[str, Any]:
    """Runs a recipe in front of a person's eyes."""
    listener.limit = options.limit
    try:
        result = recipe.run(options)
    except (AutoIFError, KeyboardInterrupt) as error:
        listener.failed(error)
        raise
    listener.finished(result)
    return result
