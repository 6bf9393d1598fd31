"""What several commands take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..recipe import Recipe


class PathOrUrl(click.Path):
    """A path of this machine, or a URL, which is looked at later."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else super().convert(value, param, ctx)


def scripts_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--seed-num", type=click.IntRange(min=1), help="Completions of the self-instruct prompt in step 1."
        ),
        click.option("--model", help="The name of the model, for every role."),
        click.option("--api-key", help="The key; better: export AUTOIF_API_KEY, which no shell history keeps."),
        click.option("--base-url", help="The server, up to and including /v1, for every role."),
        click.option(
            "--seed-dir", type=PathOrUrl(exists=True, file_okay=False), help="Seeds (.txt) and queries (.jsonl)."
        ),
        click.option("--batch-size", type=click.IntRange(min=1), help="Requests in flight, for each model."),
        click.option("--process-num", type=click.IntRange(min=1), help="Sandbox processes."),
        click.option("--output-dir", type=PathOrUrl(file_okay=False), help="Where results go: a folder or a URL."),
        click.option("--cache-dir", type=PathOrUrl(file_okay=False), help="Where completions are kept."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def loaded(recipe: str, overrides: Iterable[str], scripts: Mapping[str, Any]) -> Recipe:
    """The recipe with the scripts' options, and then those after `--set`, put in."""
    from ..autoif import overrides_for
    from ..recipe import Recipe

    return Recipe.load(recipe, [*overrides_for(recipe, **scripts), *overrides])
