"""Commands about recipes: begin one, check it, compare two, and what a recipe may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import AutoIFError, ModelUnavailable, Problem, RecipeError
from ..plain import plain

if TYPE_CHECKING:
    from ..models import ModelConfig


@click.command()
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "source", default="autoif", show_default=True, help="A recipe of ours by name, or a file.")
def init(directory: Path, source: str) -> None:
    """Begin with a recipe of your own: copies one, and the files that it names, into DIRECTORY.

    \b
    autoif init
    autoif init mine --from paper
    """
    from ..starter import start

    written = start(directory, source)
    for path in written:
        click.echo(path)
    click.echo(f"next: autoif run {written[0]}", err=True)


@click.command()
@click.argument("recipes", metavar="RECIPE...", type=click.Path(), nargs=-1, required=True)
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@click.option("--ping", is_flag=True, help="Also ask every server for its models and for one token.")
def check(recipes: tuple[str, ...], overrides: tuple[str, ...], ping: bool) -> None:
    """Check each RECIPE: options, files, and that every step reads what an earlier one writes.

    \b
    autoif check autoif.yaml
    autoif check autoif.yaml --ping
    """
    from ..recipe import Recipe

    problems: list[Problem] = []
    models: dict[str, ModelConfig] = {}
    for recipe in recipes:
        try:
            loaded = Recipe.load(recipe, overrides)
        except RecipeError as error:
            problems += error.problems
            continue
        blocks = sum(len(step.blocks) for step in loaded.steps)
        click.echo(f"{recipe}: all right: {len(loaded.steps)} steps, {blocks} blocks, {len(loaded.models)} models")
        models |= {f"{recipe}: {name}" if recipes[1:] else name: config for name, config in loaded.models.items()}
    if problems:
        raise RecipeError(problems)
    if ping:
        _ping(models)


def _ping(models: dict[str, ModelConfig]) -> None:
    from ..ping import ping

    pongs = ping(models)
    for pong in pongs:
        click.echo(f"{'ok     ' if pong.ok else 'FAILED '} {pong.model}: {pong.url}: {plain(pong.said)}")
    if failed := sum(not pong.ok for pong in pongs):
        raise ModelUnavailable(f"{failed} of {len(pongs)} servers cannot be used")


@click.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option of AFTER.")
def diff(before: str, after: str, overrides: tuple[str, ...]) -> None:
    """Show which steps of two recipes differ, and what a run of AFTER asks again after one of BEFORE.

    \b
    autoif diff autoif.yaml mine.yaml
    autoif diff autoif.yaml autoif.yaml --set steps.score_filter.value='> 8'
    """
    from ..compare import show
    from ..recipe import Recipe

    show(Recipe.load(before), Recipe.load(after, overrides))


@click.command()
@click.argument("name", required=False)
def blocks(name: str | None) -> None:
    """List the blocks, or describe NAME: what it does, its options, what it reads and writes.

    \b
    autoif blocks
    autoif blocks judge_score
    autoif blocks my_blocks.py:NotAnEcho
    """
    from ..describe import catalogue, description
    from ..resolve import find_block

    if name is None:
        click.echo(catalogue())
        return
    try:
        click.echo(description(name, find_block(name, Path.cwd())))
    except ValueError as error:
        raise RecipeError(str(error)) from error


@click.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write it to.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors with a YAML language server find it by a recipe's first line:

    \b
    # yaml-language-server: $schema=autoif.schema.json
    autoif schema -o autoif.schema.json
    """
    from ..outputs import write_json
    from ..schema import schema as made

    if output is None:
        click.echo(json.dumps(made(), indent=2))
    else:
        try:
            write_json(output, made())
        except OSError as error:
            raise AutoIFError(f"cannot write {output}: {error.strerror or error}") from error
