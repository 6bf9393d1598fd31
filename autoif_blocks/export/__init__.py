"""`autoif export`: a run's chat records in the layouts that trainers read: a file, a data set's folder, or on the Hub.

`layouts.py` turns rows into chats and chats into columns, `files.py` writes them, `card.py` says in the folder where
the data comes from, `hub.py` uploads the folder.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import AutoIFError, RecipeError
from ..lineage import Files
from ..outputs import lines_of, shards_of
from .card import card
from .files import write_jsonl, write_parquet
from .hub import push
from .layouts import LAYOUTS, chat_of, columns_of

DATA = Path("data") / "train.jsonl"
CARD = "README.md"


def export(output: Path, layout: str, target: Path, keep: bool = False, licence: str = "") -> int:
    """Writes the records of a run's last step; returns how many.

    Args:
        layout: one of `LAYOUTS`.
        target: a `.jsonl` or `.parquet` file; anything else is a folder for a data set with its card.
        keep: whether rows keep their `id` and `metadata` beside the layout's own columns.
        licence: of the data, by its identifier on the Hub; only the card names it.

    Raises:
        RecipeError: there is no run, its records are no chats, or the target is something else's.
        AutoIFError: there is no record.
        StopRun: the target cannot be written.
    """
    files = Files(output)
    rows = _rows(files, layout, keep)
    if (first := next(rows, None)) is None:  # before a file that is there is replaced by nothing
        raise AutoIFError(f"{files.output / files.last['file']} is empty: there is nothing to export")
    rows = itertools.chain([first], rows)
    if target.suffix == ".jsonl":
        return write_jsonl(target, rows)
    if target.suffix == ".parquet":
        return write_parquet(target, rows, LAYOUTS[layout], keep)
    if target.exists() and not _ours(target):
        raise RecipeError(f"{target} exists and is no folder that an export has written: name another")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        folder = Path(aside) / "folder"
        count = write_jsonl(folder / DATA, rows)
        (folder / CARD).write_text(card(files.run, layout, count, target.name, licence), encoding="utf-8")
        if target.exists():
            target.replace(Path(aside) / "earlier")
        folder.replace(target)
    return count


def export_to_hub(
    output: Path, layout: str, repository: str, keep: bool, licence: str, public: bool
) -> tuple[int, str]:
    """The same into a repository of the Hub; returns how many records, and where they are.

    Raises:
        StopRun: the Hub refuses, or cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="autoif-export-") as aside:
        folder = Path(aside) / repository.rpartition("/")[2]
        count = export(output, layout, folder, keep, licence)
        return count, push(folder, repository, public)


def _rows(files: Files, layout: str, keep: bool) -> Iterator[dict[str, Any]]:
    if not files.steps:
        raise RecipeError(f"{files.output} has no step that has run")
    path = files.output / files.last["file"]
    if not path.is_file() and not shards_of(path):
        raise RecipeError(f"there is no {path}: the run is {files.run.get('state')}; let the same command finish it")
    for number, line in enumerate(lines_of(path), start=1):
        try:
            chat = chat_of(line)
            columns = columns_of(chat, layout)
        except ValueError as error:
            raise RecipeError(f"{path}:{number}: {error}") from error
        yield {**columns, "id": chat.id, "metadata": chat.metadata} if keep else columns


def _ours(target: Path) -> bool:
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} if target.is_dir() else {""}
    return found <= {CARD, str(DATA)}
