"""`autoif export`: a run's records as trainers read them: in a file, in a data set's folder, or on the Hub.

`layouts.py` turns rows into chats and chats into columns, `pairs.py` does so for pairs, `prompts.py` for prompts with
what verifies an answer; `files.py` writes them, `card.py` says in the folder where the data comes from, `hub.py`
uploads it. `environment.py` writes a Python package instead.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import AutoIFError, RecipeError
from ..lineage import Files
from ..outputs import lines_of, shards_of
from .card import card
from .environment import module_of, write_environment
from .files import write_jsonl, write_parquet
from .hub import push
from .layouts import LAYOUTS, Chat, Columns, chat_of, columns_of
from .pairs import PAIR_LAYOUTS, Pair, columns_of_pair, pair_of
from .prompts import PROMPT_LAYOUTS, Task, columns_of_task, task_of

COLUMNS: Mapping[str, Columns] = {**LAYOUTS, **PAIR_LAYOUTS, **PROMPT_LAYOUTS}
PACKAGE = "verifiers"
"""the layout that is a Python package"""
FORMATS = (*COLUMNS, PACKAGE)

DATA = Path("data") / "train.jsonl"
CARD = "README.md"


def export(output: str | Path, layout: str, target: Path, keep: bool = False, licence: str = "") -> int:
    """Writes the records of a run's last step; returns how many.

    Args:
        layout: one of `FORMATS`.
        target: a `.jsonl` or `.parquet` file; anything else is a folder for a data set with its card.
        keep: whether rows keep their `id` and `metadata` beside the layout's own columns.
        licence: of the data, by its identifier on the Hub; only the card names it.

    Raises:
        RecipeError: there is no run, its records are no chats, or no pairs, or the target is something else's.
        AutoIFError: there is no record.
        StopRun: the target cannot be written, or a remote directory cannot be read.
    """
    files = Files.at(output, last_only=True)
    module = module_of(target) if layout == PACKAGE else ""
    rows = _rows(files, "rlvr" if module else layout, keep or bool(module))
    if (first := next(rows, None)) is None:  # before a file that is there is replaced by nothing
        raise AutoIFError(f"{files.place(files.last)} is empty: there is nothing to export")
    rows = itertools.chain([first], rows)
    if target.suffix == ".jsonl":
        return write_jsonl(target, rows)
    if target.suffix == ".parquet":
        return write_parquet(target, rows, COLUMNS[layout], keep)
    if target.exists() and not _ours(target, module):
        raise RecipeError(f"{target} exists and is no folder that an export has written: name another")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        folder = Path(aside) / "folder"
        count = write_environment(folder, module, rows) if module else write_jsonl(folder / DATA, rows)
        (folder / CARD).write_text(card(files.run, layout, count, module or target.name, licence), encoding="utf-8")
        if target.exists():
            target.replace(Path(aside) / "earlier")
        folder.replace(target)
    return count


def export_to_hub(
    output: str | Path, layout: str, repository: str, keep: bool, licence: str, public: bool
) -> tuple[int, str]:
    """The same into a repository of the Hub; returns how many records, and where they are.

    Raises:
        RecipeError: the layout is no data set.
        StopRun: the Hub refuses, or cannot be reached.
    """
    if layout == PACKAGE:
        raise RecipeError("a package for verifiers is no data set: name a folder with --to")
    with tempfile.TemporaryDirectory(prefix="autoif-export-") as aside:
        folder = Path(aside) / (re.sub(r"[^\w.-]|^\.+", "", repository.rpartition("/")[2]) or "dataset")
        count = export(output, layout, folder, keep, licence)
        return count, push(folder, repository, public)


def _rows(files: Files, layout: str, keep: bool) -> Iterator[dict[str, Any]]:
    if not files.steps:
        raise RecipeError(f"{files.called} has no step that has run")
    path, place = files.output / files.last["file"], f"{files.called}/{files.last['file']}"
    if not path.is_file() and not shards_of(path):
        raise RecipeError(f"there is no {place}: the run is {files.run.get('state')}; let the same command finish it")
    for number, line in enumerate(lines_of(path), start=1):
        try:
            found, columns = _read(line, layout)
        except ValueError as error:
            raise RecipeError(f"{place}:{number}: {error}{_ended_early(files)}") from error
        yield {**columns, "id": found.id, "metadata": found.metadata} if keep else columns


def _ended_early(files: Files) -> str:
    """That the recipe has more steps than have run: one of those may make what is wanted."""
    data = (files.run.get("recipe") or {}).get("data")
    steps = data.get("steps") if isinstance(data, dict) else None
    last = steps[-1].get("name") if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else None
    if not isinstance(last, str) or last == files.last["name"]:
        return ""
    return f". The run ended with step '{files.last['name']}', its recipe goes on to '{last}': run that, too"


def _read(line: bytes, layout: str) -> tuple[Chat | Pair | Task, dict[str, Any]]:
    """What a row holds, and its columns."""
    if layout in PAIR_LAYOUTS:
        pair = pair_of(line)
        return pair, columns_of_pair(pair, layout)
    if layout in PROMPT_LAYOUTS:
        task = task_of(line)
        return task, columns_of_task(task)
    chat = chat_of(line)
    return chat, columns_of(chat, layout)


def _ours(target: Path, module: str) -> bool:
    """Whether a folder holds nothing but an earlier export of the kind."""
    package = {"pyproject.toml", f"{module}/__init__.py", f"{module}/data.jsonl"}
    files = (path for path in target.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = {str(path.relative_to(target)) for path in files} if target.is_dir() else {""}
    return found <= {CARD, *(package if module else (str(DATA),))}
