"""One frame of the live view: lines that fit the terminal, whatever its size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from ..limits import ServerHealth
from .figures import Figures, StepFigures
from .lines import budget_left, headline, one_row
from .table import compact, duration

_BAR, _LEAST_BAR = 40, 10  # characters
_NAME, _LEAST_NAME = 34, 14
_SERVERS = 6  # shown at most
_ASCII = str.maketrans({"━": "#", "─": "-", "…": "~", "·": "-"})

_Cell = Callable[[StepFigures], str]
# In the order in which they stand; the number says which go first where there is no room: the highest.
_COLUMNS: tuple[tuple[str, int, _Cell], ...] = (
    ("in", 2, lambda step: compact(step.meter.taken)),
    ("out", 0, lambda step: compact(step.meter.given)),
    ("dropped", 1, lambda step: compact(step.meter.dropped.total())),
    ("flight", 3, lambda step: compact(step.meter.in_flight) if step.meter.requests else ""),
    ("req/s", 4, lambda step: f"{step.per_second:.1f}" if step.per_second >= 0.05 else ""),
    ("tok/s", 6, lambda step: compact(round(step.tokens_per_second)) if step.tokens_per_second >= 0.5 else ""),
    ("cost", 7, lambda step: f"{step.meter.cost:.2f}" if step.meter.cost else ""),
    ("hit", 5, lambda step: f"{int(100 * step.hit_rate)}%" if step.hit_rate is not None else ""),
)


def frame(figures: Figures, width: int, height: int, utf8: bool = True) -> Group:
    """At most `height` lines of at most `width` cells."""
    rows = _table(figures.steps, width)
    head = [_bar(figures, width)]
    hint = ("Ctrl-C stops; the same command continues", "dim")
    foot = [*_servers(figures), *_reasons(figures), *_warning(figures), hint]
    # Without room the hint goes first, then from below what is in order; then steps with nothing in hand, so that a
    # quarter of the screen is left for what is not.
    while len(foot) > max(0, height - len(head) - len(rows)):
        calm = [at for at, (_, style) in enumerate(foot) if style == ""]
        if not calm and foot[-1] != hint and len(foot) <= height // 4:
            break
        foot.pop(-1 if foot[-1] == hint or not calm else calm[-1])
    rows = _cropped(rows, figures.steps, height - len(head) - len(foot))
    lines = [*head, *rows, *foot][: max(1, height)]
    return Group(*(_text(words, style, width, utf8) for words, style in lines))


def _text(words: str, style: str, width: int, utf8: bool) -> Text:
    words = one_row(words)
    if not utf8:
        words = words.translate(_ASCII).encode("ascii", "replace").decode()
    if cell_len(words) > width:
        words = set_cell_size(words, width - 1) + ("…" if utf8 else "~")
    return Text(words, style=style, no_wrap=True, overflow="crop")


def _bar(figures: Figures, width: int) -> tuple[str, str]:
    words = "  ".join([*headline(figures), f"{duration(figures.seconds)} gone", *budget_left(figures)])
    size = min(_BAR, width - len(words) - 2)
    if size < _LEAST_BAR:
        return words, "bold"
    accepted, share = figures.accepted, figures.progress.share or 0.0
    full = int(size * (min(1.0, accepted[0] / accepted[1]) if accepted else share))
    return f"{'━' * full}{'─' * (size - full)}  {words}", "bold"


def _table(steps: Sequence[StepFigures], width: int) -> list[tuple[str, str]]:
    names = ["step", *(f"{step.number:>2} {step.name}" for step in steps)]
    columns = [(rank, [title, *map(cell, steps)]) for title, rank, cell in _COLUMNS]
    columns = [(rank, cells) for rank, cells in columns if cells[0] != "cost" or any(cells[1:])]
    # As wide as numbers of five characters from the beginning, so that the table stands still while they grow.
    sized = [(rank, cells, max(5, *map(len, cells))) for rank, cells in columns]
    longest = min(_NAME, max(map(cell_len, names)))
    while len(sized) > 1 and sum(size + 1 for *_, size in sized) + min(longest, _LEAST_NAME) > width:
        sized.remove(max(sized, key=lambda column: column[0]))
    room = max(4, min(longest, width - sum(size + 1 for *_, size in sized)))
    shown = []
    for at, name in enumerate(names):
        cut = name if cell_len(name) <= room else set_cell_size(name, room - 1) + "…"
        line = " ".join([set_cell_size(cut, room), *(cells[at].rjust(size) for _, cells, size in sized)])
        style = "bold" if at == 0 else "" if steps[at - 1].begun else "dim"
        shown.append((line, style))
    return shown


def _cropped(rows: list[tuple[str, str]], steps: Sequence[StepFigures], room: int) -> list[tuple[str, str]]:
    """The table in so many lines: without its head, and of the steps those that have something in hand first."""
    if len(rows) <= room:
        return rows
    if room < 1:
        return []
    most = room - 1  # a line says how many are left out
    by_need = sorted(range(len(steps)), key=lambda at: (not steps[at].at_work, not steps[at].begun, at))
    kept = sorted(by_need[:most])
    return [*(rows[at + 1] for at in kept), (f"… {len(steps) - len(kept)} more", "dim")]


def _servers(figures: Figures) -> list[tuple[str, str]]:
    lines = [
        (f"{model} · {health.url.split('//')[-1]} · {words}", style)
        for model, health in figures.servers
        for words, style in [_state(health)]
    ]
    lines.sort(key=lambda line: line[1] == "")  # those in trouble first
    more = len(lines) - _SERVERS
    return lines if more <= 0 else [*lines[: _SERVERS - 1], (f"… {more + 1} more servers", "dim")]


def _state(health: ServerHealth) -> tuple[str, str]:
    if health.dead:
        return f"out of use: {health.dead}", "red"
    if (rest := health.resting_until - time.time()) > 0:
        return f"failing, passed over for {max(1, round(rest))} s", "red"
    words = f"{health.in_flight} in flight, at most {health.limit}"
    return (f"{words} of {health.ceiling}", "yellow") if health.limit < health.ceiling else (words, "")


def _reasons(figures: Figures) -> list[tuple[str, str]]:
    if not figures.reasons:
        return []
    return [("dropped: " + ", ".join(f"{reason} {count} ({step})" for step, reason, count in figures.reasons[:4]), "")]


def _warning(figures: Figures) -> list[tuple[str, str]]:
    if figures.warning is None:
        return []
    at, text = figures.warning
    return [(f"warning {duration(max(0.0, time.time() - at))} ago: {text}", "yellow")]
