"""The recipe as a Python object, for those who would rather call than write YAML; and the options the scripts had."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .progress import ConsoleListener, show
from .recipe import Recipe
from .run import RunOptions
from .source import read
from .storage import is_url, listed

_KEY_VARIABLE = "AUTOIF_GIVEN_API_KEY"


def shipped(name: str = "autoif.yaml") -> Path:
    """A recipe or sample file of this project, from the checkout or from the installed package.

    Raises:
        RecipeError: there is no such file.
    """
    package = Path(__file__).parent
    for folder in (package / "shipped", package.parent):
        if (folder / name).is_file():
            return folder / name
    raise RecipeError(f"this installation has no {name}: name a recipe by its path")


def overrides_for(
    recipe: str | Path,
    seed_num: int | None = None,
    model: str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    seed_dir: str | Path | None = None,
    batch_size: int | None = None,
    process_num: int | None = None,
    output_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> list[str]:
    """The options that the scripts had, as `path.to.option=value` overrides of a recipe.

    Raises:
        RecipeError: the recipe has nothing that an option could apply to.
    """
    data = read(recipe).data
    models = list(data["models"]) if isinstance(data.get("models"), dict) else []
    found: list[str] = []
    for option, value in (("model", model), ("base_url", base_url), ("max_concurrency", batch_size)):
        found += [f"models.{name}.{option}={_quoted(value)}" for name in models if value is not None]
    if api_key is not None:
        # The key goes where every key lives, into the environment; the recipe only learns its name.
        os.environ[_KEY_VARIABLE] = api_key
        found += [f"models.{name}.api_key=${{{_KEY_VARIABLE}}}" for name in models]
    if process_num is not None:
        found.append(f"sandbox.workers={process_num}")
    found += [
        f"{key}={_quoted(value)}" for key, value in (("output_dir", output_dir), ("cache_dir", cache_dir)) if value
    ]
    blocks = list(_blocks(data))
    if seed_num is not None:
        found += _required([f"{path}.n={seed_num}" for path, block in blocks if block.get("block") == "self_instruct"],
                           "--seed-num", "self_instruct")  # fmt: skip
    if seed_dir is not None:
        found += _required(list(_seed_files(str(seed_dir), blocks)), "--seed-dir", "read_lines or join_queries")
    return found


def _required(overrides: list[str], option: str, blocks: str) -> list[str]:
    if not overrides:
        raise RecipeError(f"{option} has nothing to apply to: the recipe has no {blocks} block")
    return overrides


def _blocks(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, step in enumerate(_listed(data.get("steps")), start=1):
        if isinstance(step, dict):
            yield f"steps.{number}", step
            for position, block in enumerate(_listed(step.get("blocks")), start=1):
                if isinstance(block, dict):
                    yield f"steps.{number}.{position}", block


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []  # what is wrong with it, the recipe's check will say


def _seed_files(folder: str, blocks: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """The files of a seed directory take the place of those of the same name, or else of the same kind."""
    try:
        there = listed(folder) if is_url(folder) else _files_in(Path(folder))
    except ValueError as error:
        raise RecipeError(f"--seed-dir: {error}") from error
    for path, block in blocks:
        kind = {"read_lines": ".txt", "join_queries": ".jsonl", "join_prompts": ".jsonl"}.get(str(block.get("block")))
        if kind is None or not isinstance(block.get("path"), str):
            continue
        name = Path(block["path"]).name
        others = [file for file in there if file.endswith(kind)]
        same = [file for file in there if Path(file).name == name]
        if not same and len(others) != 1:
            found = ", ".join(Path(other).name for other in others) or "none"
            raise RecipeError(f"{folder} should hold {name} or a single *{kind} file; it holds {found}")
        yield f"{path}.path={_quoted((same or others)[0])}"


def _files_in(folder: Path) -> list[str]:
    return sorted(str(path.resolve()) for path in folder.iterdir() if path.is_file())


def _quoted(value: object) -> str:
    """The value as YAML: a model called `yes` or a directory called `2024` is text."""
    return json.dumps(value if isinstance(value, int) else str(value))


class AutoIF:
    """The ten steps with the scripts' parameters.

        AutoIF(N=10, model="Qwen/Qwen2.5-72B-Instruct", base_url="http://localhost:8000/v1", output_dir="out").run()

    Args:
        N: completions of the self-instruct prompt in step 1.
        model, base_url, api_key: the server that plays every role; left out, the recipe's own.
        process_num: sandbox processes that run functions at the same time.
        batch_size: requests in flight, for each model.
        seed_dir: a directory with seed instructions (.txt) and queries (.jsonl).
        output_dir, cache_dir: where results and completions go.
        recipe: another recipe than the project's `autoif.yaml`.
        target: go on, with more completions than N, until so many records are accepted.

    Raises:
        RecipeError: an option or the recipe is wrong.
    """

    def __init__(
        self,
        N: int | None = None,
        model: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        process_num: int | None = None,
        batch_size: int | None = None,
        seed_dir: str | Path | None = None,
        output_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        recipe: str | Path | None = None,
        target: int | None = None,
    ) -> None:
        path = Path(recipe) if recipe is not None else shipped()
        overrides = overrides_for(
            path, N, model, api_key, base_url, seed_dir, batch_size, process_num, output_dir, cache_dir
        )
        self.recipe = Recipe.load(path, [*overrides, *([f"target={target}"] if target is not None else [])])

    def __repr__(self) -> str:
        return f"AutoIF({self.recipe.path}, output_dir={self.recipe.place})"

    def run(
        self, start_step: str | int = 1, end_step: str | int | None = None, limit: int | None = None,
        overwrite: bool = False, resume: bool = True, quiet: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Runs the steps (1-10, or names), shows how it goes unless `quiet`, and returns what `run.json` holds.

        Raises:
            RecipeError: the steps are not there, or the output directory holds other results.
            StopRun: the run cannot go on.
        """
        listener = ConsoleListener(quiet)
        return show(self.recipe, RunOptions(start_step, end_step, limit, overwrite, resume, listener), listener)
