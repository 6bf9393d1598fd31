"""`autoif cache`: what a cache holds and what it has saved, step by step; and how to make it smaller."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from .cache import FILE_NAME
from .errors import RecipeError, StopRun
from .mirror import mirrored_cache
from .options import nearest
from .outputs import CACHE_LOCK, held
from .recipe import Recipe
from .salvage import repair
from .storage import is_url
from .upkeep import Selection, StepShare, outputs, prune, selected, shares

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNKNOWN = "(not known)"


@contextlib.contextmanager
def opened(where: str) -> Iterator[Path]:
    """The folder of the cache of a recipe, an output directory, or a cache directory; a remote one is brought here, and
    sent back if the block changes it.

    Raises:
        RecipeError: there is none.
        StopRun: it is remote, and cannot be reached or is in use.
    """
    path = Path(where)
    recipe = Recipe.load(where) if not is_url(where) and path.is_file() and path.name != FILE_NAME else None
    within = recipe is not None and recipe.output_url and recipe.cache_dir.is_relative_to(recipe.output_dir)
    if recipe is None and not is_url(where):
        yield _folder_of(path, None)
    elif recipe is None or recipe.cache_url or within:
        with mirrored_cache(recipe or where, lambda said: click.echo(said, err=True)) as folder:
            yield _folder_of(folder, recipe)
    else:
        yield _folder_of(path, recipe)


def _folder_of(where: Path, recipe: Recipe | None) -> Path:
    if recipe is not None:
        folders, remedy = [recipe.cache_dir], "run the recipe first, or name the directory it ran into"
    else:
        folders = [where.parent if where.is_file() else where, where / "cache"]
        remedy = "name a recipe, an output directory or a cache directory"
    for folder in folders:
        if any(folder.glob(f"{FILE_NAME}*")):
            return folder
    raise RecipeError(f"there is no cache in {folders[0]}: {remedy}")


def seconds_of(text: str) -> float:
    """`90m`, `12h`, `30d` or `2w` in seconds.

    Raises:
        RecipeError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if match is None:
        raise RecipeError(f"--older-than takes a number of m, h, d or w, like 30d, got '{text}'")
    return float(match[1]) * _UNITS[match[2]]


def show(folder: Path) -> None:
    """Prints a line for each step."""
    try:
        with held(folder, CACHE_LOCK, "try again later"):
            _mend(folder)
            _print(folder)
    except StopRun:
        if not (folder / FILE_NAME).exists():
            raise
        click.echo("a run is using it, and will have kept more at its end", err=True)
        _print(folder)


def delete(folder: Path, selection: Selection, dry_run: bool) -> None:
    """Deletes a selection, or says what it would delete.

    Raises:
        RecipeError: there is no such step, or it is not known what is unused.
        StopRun: a run is using the cache, or it cannot be written.
    """
    with held(folder, CACHE_LOCK, "try again later"):
        _mend(folder)
        known = [share.step for share in shares(folder)]
        for step in selection.steps:
            if step not in known:
                raise RecipeError(f"{folder} has nothing of a step '{step}'; {nearest(step, known, 'steps')}")
        if selection.unused and not outputs(folder):
            raise RecipeError(f"no complete run is known to {folder}: complete one first, or choose by other options")
        before = _size(folder)
        if dry_run:
            found, note = selected(folder, selection), ""
        else:
            found, note = prune(folder, selection)
    count, size = (sum(numbers) for numbers in zip((0, 0), *found.values(), strict=True))
    parts = ", ".join(f"{step or _UNKNOWN} {number}" for step, (number, _) in found.items())
    click.echo(f"{'would delete' if dry_run else 'deleted'} {count} completions, {readable(size)}: {parts or 'none'}")
    if not dry_run:
        click.echo(f"the file had {readable(before)}, has {readable(_size(folder))}{f'; {note}' if note else ''}")


def _mend(folder: Path) -> None:
    if said := repair(folder):
        click.echo(said, err=True)


def _size(folder: Path) -> int:
    files = (folder / f"{FILE_NAME}{suffix}" for suffix in ("", "-wal"))
    return sum(path.stat().st_size for path in files if path.exists())


def _print(folder: Path) -> None:
    found, compared = shares(folder), outputs(folder)
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=len(found) > 1, footer_style="bold")
    table.add_column("step", "all", no_wrap=True)
    sums = [sum(share.completions for share in found), sum(share.bytes for share in found)]
    hits, asked = sum(share.hits for share in found), sum(share.asked for share in found)
    unused = str(sum(share.unused for share in found)) if compared else "?"
    titles = ("kept", "size", "hits", "of", "rate", "oldest", "unused")
    footers = (str(sums[0]), readable(sums[1]), str(hits), str(asked), _rate(hits, asked), "", unused)
    for title, footer in zip(titles, footers, strict=True):
        table.add_column(title, footer, justify="right", no_wrap=True)
    for share in found:
        table.add_row(share.step or _UNKNOWN, *_cells(share, bool(compared)))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"{folder / FILE_NAME}: {sums[0]} completions, {readable(_size(folder))} on disk", soft_wrap=True)
    if found:
        console.print(table)
        console.print("hits: completions that the last run had from the cache, of those that it wanted", style="dim")
    if found and compared:
        told = "unused: by the last complete run into " + ", ".join(compared)
        console.print(told, style="dim", soft_wrap=True, markup=False)
    for path in sorted(folder.glob(f"{FILE_NAME}.damaged-*")):
        with contextlib.suppress(OSError):
            size = readable(path.stat().st_size)
            console.print(f"{path}: {size}, a damaged file that was kept; nothing reads it", soft_wrap=True)


def _cells(share: StepShare, compared: bool) -> list[str]:
    return [
        str(share.completions),
        readable(share.bytes),
        str(share.hits) if share.asked else "",
        str(share.asked) if share.asked else "",
        _rate(share.hits, share.asked),
        datetime.fromtimestamp(share.oldest).strftime("%Y-%m-%d") if share.completions else "",
        str(share.unused) if compared else "?",
    ]


def _rate(hits: int, asked: int) -> str:
    return f"{hits / asked:.0%}" if asked else ""


def readable(size: float) -> str:
    """`512 B`, `3.4 kB`, `1.2 GB`."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and units[1:]:
        size /= 1000
        del units[0]
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.1f} {units[0]}"
