"""Commands that ask models: run a recipe, try it, reckon what it will take; and what was paid for."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from ..errors import AutoIFError, RecipeError
from .options import PathOrUrl, loaded, scripts_options


@click.command()
@click.argument("recipe", type=click.Path())
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override an option: steps.score_filter.value='> 8'.",
)
@click.option("--limit", type=click.IntRange(min=1), help="A trial: so many records leave step 1.")
@click.option("--target", type=click.IntRange(min=1), help="Go on until so many records are accepted.")
@click.option("--start-step", default="1", show_default=True, help="A number or name; reads the earlier step's file.")
@click.option("--end-step", help="A number or name; the last step to run.")
@click.option("--overwrite", is_flag=True, help="Replace another recipe's results in the output directory.")
@click.option("--no-resume", is_flag=True, help="Delete completions and step files, and ask for everything again.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Tell how it goes as JSON, a line every 5 s on standard output.")
@scripts_options
def run(
    recipe: str, overrides: tuple[str, ...], limit: int | None, target: int | None, start_step: str,
    end_step: str | None, overwrite: bool, no_resume: bool, quiet: bool, as_json: bool,
    **scripts: Any,
) -> None:  # fmt: skip
    """Run RECIPE.

    The same command again continues or replays: completions that are paid for are kept.

    \b
    autoif run autoif.yaml --limit 5
    autoif run autoif.yaml --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-72B-Instruct
    autoif run autoif.yaml --start-step score_filter --set steps.score_filter.value='> 8' --overwrite
    """
    from ..progress import ConsoleListener, JsonListener, show
    from ..run import RunOptions, target_left_aside

    for stop in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs are started ignoring it
        signal.signal(stop, signal.default_int_handler)  # until the run has begun, which stops more gently
    aimed = [f"target={target}"] if target is not None else []
    opened = loaded(recipe, [*overrides, *aimed], scripts)
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude each other")
    listener = JsonListener() if as_json else ConsoleListener(quiet)
    options = RunOptions(start_step, end_step, limit, overwrite, not no_resume, listener, exit_when_aborted=True)
    if aimed and (aside := target_left_aside(opened, options)):
        raise RecipeError(f"--target {target} cannot be followed: {aside}")
    try:
        result = show(opened, options, listener)
    except KeyboardInterrupt:
        click.echo("stopped: what is paid for is kept, the same command continues", err=True)
        sys.exit(130)
    if result["records"] == 0:
        lossy = max(result["steps"], key=lambda step: sum(step["dropped"].values()) if not step["out"] else -1)
        raise AutoIFError(f"no record is left: step '{lossy['name']}' dropped them all; see dropped/{lossy['file']}")


@click.command()
@click.argument("recipe", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Run on N records for real, and reckon.")
@click.option("--json", "as_json", is_flag=True, help="Print it for a program.")
@scripts_options
def plan(recipe: str, overrides: tuple[str, ...], sample: int | None, as_json: bool, **scripts: Any) -> None:
    """Show how RECIPE is cut into stages and tasks; with --sample, what a run will take.

    The sample is asked of the models, so it costs what it says; its completions are kept for the run.

    \b
    autoif plan autoif.yaml
    autoif plan autoif.yaml --sample 10 --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-72B-Instruct
    """
    from ..plan import show

    show(loaded(recipe, overrides, scripts), sample, as_json)


@click.command()
@click.argument("recipe", type=click.Path())
@click.option("--step", required=True, help="A number or a name.")
@click.option("-n", "count", type=click.IntRange(min=1), default=3, show_default=True, help="How many records.")
@click.option("--full", is_flag=True, help="Do not shorten long texts.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@scripts_options
def preview(recipe: str, step: str, count: int, full: bool, overrides: tuple[str, ...], **scripts: Any) -> None:
    """Run a few records of RECIPE to a step, and show its prompts, completions and results side by side.

    \b
    autoif preview autoif.yaml --step score_quality
    autoif preview autoif.yaml --step 2 -n 1 --full
    """
    from ..preview import show

    show(loaded(recipe, overrides, scripts), step, count, full)


@click.command()
@click.argument("where", metavar="RECIPE|DIRECTORY|URL", type=PathOrUrl(exists=True))
@click.option("--prune", "pruning", is_flag=True, help="Delete the completions that the other options choose.")
@click.option("--dry-run", is_flag=True, help="With --prune: only say what would be deleted.")
@click.option("--unused", is_flag=True, help="Those that the last complete run had no use for.")
@click.option("--step", "steps", multiple=True, metavar="NAME", help="Those that this step has paid for.")
@click.option("--older-than", metavar="AGE", help="Those neither paid for nor used since: 90m, 12h, 30d, 2w.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
def cache(
    where: str, pruning: bool, dry_run: bool, unused: bool, steps: tuple[str, ...], older_than: str | None,
    everything: bool,
) -> None:  # fmt: skip
    """Show the completions that are kept, and how many of them the last run needed; or delete some.

    Several choices narrow one another: only what fits all of them is deleted.

    \b
    autoif cache autoif.yaml
    autoif cache output --prune --unused --dry-run
    autoif cache output --prune --step score_quality --older-than 30d
    """
    from ..cache_command import delete, opened, seconds_of, show
    from ..upkeep import Selection

    selection = Selection(steps, None if older_than is None else seconds_of(older_than), unused)
    chosen = selection != Selection()
    if (chosen or everything or dry_run) and not pruning:
        raise RecipeError("these options choose what --prune deletes: add it (with --dry-run it only says what)")
    if pruning and chosen == everything:
        raise RecipeError("--prune needs --unused, --step or --older-than to choose what to delete, or --all alone")
    with opened(where) as folder:
        if pruning:
            delete(folder, selection, dry_run)
        else:
            show(folder)
