"""`autoif init`: a recipe of one's own to begin with, beside the files that it names."""

from __future__ import annotations

import ast
import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from .autoif import shipped
from .errors import RecipeError, StopRun
from .options import nearest
from .outputs import json_text
from .schema import schema
from .source import read

SCHEMA_FILE = "autoif.schema.json"
_DEFAULT = "autoif"


def recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return [_DEFAULT, *sorted(path.stem for path in (shipped().parent / "pipelines").glob("*.yaml"))]


def start(folder: Path, source: str = _DEFAULT) -> list[Path]:
    """Copies a recipe, the files that it names and the schema for editors into `folder`.

    Args:
        source: the name of a recipe of this project, or the path of another.

    Returns:
        The files, the recipe first.

    Raises:
        RecipeError: there is no such recipe, two of its files would be one, or a file of another content is in the
            way: then nothing is written.
        StopRun: the files cannot be written.
    """
    recipe = _found(source)
    data = read(recipe).data  # which has a word for what is no recipe
    text = recipe.read_text(encoding="utf-8")
    files: dict[Path, bytes] = {}
    for written, names in _named([data.get("steps"), data.get("models")], recipe.parent):
        for name in names:
            content = (recipe.parent / name).read_bytes()
            if files.setdefault(folder / _here(name), content) != content:
                raise RecipeError(f"two files of the recipe would both be {folder / _here(name)}: rename one of them")
        text = text.replace(written, _here(written))
    files = {folder / recipe.name: text.replace(f"../{SCHEMA_FILE}", SCHEMA_FILE).encode(), **files}
    files[folder / SCHEMA_FILE] = json_text(schema()).encode()
    taken = [str(path) for path, content in files.items() if path.exists() and _content(path) != content]
    if taken:
        raise RecipeError(f"not overwritten: {', '.join(taken)}. Name another directory, or move them away first")
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise StopRun(f"cannot write into {folder}: {error.strerror or error}") from error
    return list(files)


def _found(source: str) -> Path:
    known = recipes()
    if source in known:
        return shipped(f"{source}.yaml" if source == _DEFAULT else f"pipelines/{source}.yaml")
    if not Path(source).is_file():
        raise RecipeError(
            f"there is no recipe '{source}', neither a file nor one of ours; {nearest(source, known, 'recipes')}"
        )
    return Path(source)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _here(name: str) -> str:
    """What the copy calls a file, which lies within its own folder."""
    return str(PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/"))))


def _named(value: Any, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What a recipe's values name, as they write it, and the files that it stands for: data, prompts, modules with
    blocks and those beside them that they import, and what a pattern finds."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _named(item, folder)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, folder)
    elif isinstance(value, str) and "\n" not in value:
        name = value.rpartition(":")[0] if ".py:" in value else value
        with contextlib.suppress(OSError, ValueError):  # too long for a name
            if name and (folder / name).is_file():
                yield name, _with_imported(name, folder) if name.endswith(".py") else [name]
            elif glob.has_magic(name):
                found = glob.glob(name, root_dir=folder, recursive=True)  # noqa: PTH207
                if files := [each for each in sorted(found) if (folder / each).is_file()]:
                    yield name, files


def _with_imported(name: str, folder: Path) -> list[str]:
    """A module and, of those in its folder, what it imports."""
    found = [name]
    for each in found:  # grows while it is walked
        with contextlib.suppress(SyntaxError, ValueError):
            for node in ast.walk(ast.parse((folder / each).read_bytes())):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                beside = (str(PurePosixPath(name).with_name(f"{module.split('.')[0] or '_'}.py")) for module in modules)
                found += [other for other in beside if other not in found and (folder / other).is_file()]
    return found
