"""The command line: what each command takes, and whom it calls."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .errors import AutoIFError, ModelUnavailable, Problem, RecipeError
from .plain import plain

if TYPE_CHECKING:
    from .models import ModelConfig
    from .recipe import Recipe

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _PathOrUrl(click.Path):
    """A path of this machine, or a URL, which is looked at later."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else super().convert(value, param, ctx)


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="autoif-blocks", prog_name="autoif")
def cli() -> None:
    """Verified instruction-following data from a YAML recipe.

    \b
    autoif init                            begin with a recipe of your own
    autoif run autoif.yaml                 run the ten steps
    autoif status output                   how far a run is
    autoif check autoif.yaml               find mistakes without asking a model
    autoif blocks                          list the blocks a recipe can use
    autoif cache autoif.yaml               what is kept, and what of it is of no use any more
    autoif report output                   what a run did, as one page for a browser
    autoif why output 'some text'          where a record went
    """


def _scripts_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--seed-num", type=click.IntRange(min=1), help="Completions of the self-instruct prompt in step 1."
        ),
        click.option("--model", help="The name of the model, for every role."),
        click.option("--api-key", help="The key; better: export AUTOIF_API_KEY, which no shell history keeps."),
        click.option("--base-url", help="The server, up to and including /v1, for every role."),
        click.option(
            "--seed-dir", type=_PathOrUrl(exists=True, file_okay=False), help="Seeds (.txt) and queries (.jsonl)."
        ),
        click.option("--batch-size", type=click.IntRange(min=1), help="Requests in flight, for each model."),
        click.option("--process-num", type=click.IntRange(min=1), help="Sandbox processes."),
        click.option("--output-dir", type=_PathOrUrl(file_okay=False), help="Where results go: a folder or a URL."),
        click.option("--cache-dir", type=_PathOrUrl(file_okay=False), help="Where completions are kept."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _loaded(recipe: str, overrides: Iterable[str], scripts: Mapping[str, Any]) -> Recipe:
    """The recipe with the scripts' options, and then those after `--set`, put in."""
    from .autoif import overrides_for
    from .recipe import Recipe

    return Recipe.load(recipe, [*overrides_for(recipe, **scripts), *overrides])


@cli.command()
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "source", default="autoif", show_default=True, help="A recipe of ours by name, or a file.")
def init(directory: Path, source: str) -> None:
    """Begin with a recipe of your own: copies one, and the files that it names, into DIRECTORY.

    \b
    autoif init
    autoif init mine --from paper
    """
    from .starter import start

    written = start(directory, source)
    for path in written:
        click.echo(path)
    click.echo(f"next: autoif run {written[0]}", err=True)


@cli.command()
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
@_scripts_options
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
    from .progress import ConsoleListener, JsonListener, show
    from .run import RunOptions, target_left_aside

    for stop in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs are started ignoring it
        signal.signal(stop, signal.default_int_handler)  # until the run has begun, which stops more gently
    aimed = [f"target={target}"] if target is not None else []
    loaded = _loaded(recipe, [*overrides, *aimed], scripts)
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude each other")
    listener = JsonListener() if as_json else ConsoleListener(quiet)
    options = RunOptions(start_step, end_step, limit, overwrite, not no_resume, listener, exit_when_aborted=True)
    if aimed and (aside := target_left_aside(loaded, options)):
        raise RecipeError(f"--target {target} cannot be followed: {aside}")
    try:
        result = show(loaded, options, listener)
    except KeyboardInterrupt:
        click.echo("stopped: what is paid for is kept, the same command continues", err=True)
        sys.exit(130)
    if result["records"] == 0:
        lossy = max(result["steps"], key=lambda step: sum(step["dropped"].values()) if not step["out"] else -1)
        raise AutoIFError(f"no record is left: step '{lossy['name']}' dropped them all; see dropped/{lossy['file']}")


@cli.command()
@click.argument("recipes", metavar="RECIPE...", type=click.Path(), nargs=-1, required=True)
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@click.option("--ping", is_flag=True, help="Also ask every server for its models and for one token.")
def check(recipes: tuple[str, ...], overrides: tuple[str, ...], ping: bool) -> None:
    """Check each RECIPE: options, files, and that every step reads what an earlier one writes.

    \b
    autoif check autoif.yaml
    autoif check autoif.yaml --ping
    """
    from .recipe import Recipe

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
    from .ping import ping

    pongs = ping(models)
    for pong in pongs:
        click.echo(f"{'ok     ' if pong.ok else 'FAILED '} {pong.model}: {pong.url}: {plain(pong.said)}")
    if failed := sum(not pong.ok for pong in pongs):
        raise ModelUnavailable(f"{failed} of {len(pongs)} servers cannot be used")


@cli.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option of AFTER.")
def diff(before: str, after: str, overrides: tuple[str, ...]) -> None:
    """Show which steps of two recipes differ, and what a run of AFTER asks again after one of BEFORE.

    \b
    autoif diff autoif.yaml mine.yaml
    autoif diff autoif.yaml autoif.yaml --set steps.score_filter.value='> 8'
    """
    from .compare import show
    from .recipe import Recipe

    show(Recipe.load(before), Recipe.load(after, overrides))


@cli.command()
@click.argument("recipe", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Run on N records for real, and reckon.")
@click.option("--json", "as_json", is_flag=True, help="Print it for a program.")
@_scripts_options
def plan(recipe: str, overrides: tuple[str, ...], sample: int | None, as_json: bool, **scripts: Any) -> None:
    """Show how RECIPE is cut into stages and tasks; with --sample, what a run will take.

    The sample is asked of the models, so it costs what it says; its completions are kept for the run.

    \b
    autoif plan autoif.yaml
    autoif plan autoif.yaml --sample 10 --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-72B-Instruct
    """
    from .plan import show

    show(_loaded(recipe, overrides, scripts), sample, as_json)


@cli.command()
@click.argument("recipe", type=click.Path())
@click.option("--step", required=True, help="A number or a name.")
@click.option("-n", "count", type=click.IntRange(min=1), default=3, show_default=True, help="How many records.")
@click.option("--full", is_flag=True, help="Do not shorten long texts.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override an option.")
@_scripts_options
def preview(recipe: str, step: str, count: int, full: bool, overrides: tuple[str, ...], **scripts: Any) -> None:
    """Run a few records of RECIPE to a step, and show its prompts, completions and results side by side.

    \b
    autoif preview autoif.yaml --step score_quality
    autoif preview autoif.yaml --step 2 -n 1 --full
    """
    from .preview import show

    show(_loaded(recipe, overrides, scripts), step, count, full)


@cli.command()
@click.argument("name", required=False)
def blocks(name: str | None) -> None:
    """List the blocks, or describe NAME: what it does, its options, what it reads and writes.

    \b
    autoif blocks
    autoif blocks judge_score
    autoif blocks my_blocks.py:NotAnEcho
    """
    from .describe import catalogue, description
    from .resolve import find_block

    if name is None:
        click.echo(catalogue())
        return
    try:
        click.echo(description(name, find_block(name, Path.cwd())))
    except ValueError as error:
        raise RecipeError(str(error)) from error


@cli.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write it to.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of recipes, for editors.

    Editors with a YAML language server find it by a recipe's first line:

    \b
    # yaml-language-server: $schema=autoif.schema.json
    autoif schema -o autoif.schema.json
    """
    from .outputs import write_json
    from .schema import schema as made

    if output is None:
        click.echo(json.dumps(made(), indent=2))
    else:
        try:
            write_json(output, made())
        except OSError as error:
            raise AutoIFError(f"cannot write {output}: {error.strerror or error}") from error


@cli.command()
@click.argument("where", metavar="RECIPE|DIRECTORY|URL", type=_PathOrUrl(exists=True))
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
    from .cache_command import delete, opened, seconds_of, show
    from .upkeep import Selection

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


@cli.command()
@click.argument("output_dir", type=_PathOrUrl(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def status(output_dir: str | Path, as_json: bool) -> None:
    """Show how far the run into OUTPUT_DIR is: every step, every task. Exit code 0 if it is complete, 1 if not.

    From any machine that sees the directory, or may read the remote one, while the run goes on or later.

    \b
    autoif status output
    autoif status s3://bucket/run
    """
    from .status_command import look_at, show

    found = look_at(output_dir)
    show(found, as_json)
    sys.exit(0 if found.complete else 1)


@cli.command()
@click.argument("output", metavar="OUTPUT_DIR", type=_PathOrUrl(path_type=Path))
@click.argument("record_id", metavar="ID")
def trace(output: str | Path, record_id: str) -> None:
    """Print a record's whole way, from the seed to its end; its ID stands in the step files.

    \b
    autoif trace output 32254e3a3265e2ecaa81
    """
    from .lineage_command import trace as show

    show(output, record_id)


@cli.command()
@click.argument("output", metavar="OUTPUT_DIR", type=_PathOrUrl(path_type=Path))
@click.argument("wanted", metavar="ID|TEXT")
def why(output: str | Path, wanted: str) -> None:
    """Say at which step a record was dropped, why, and on what evidence. TEXT finds records by what they hold.

    \b
    autoif why output 32254e3a3265e2ecaa81
    autoif why output 'stripped screw'
    """
    from .lineage_command import why as tell

    tell(output, wanted)


@cli.command()
@click.argument("output", metavar="OUTPUT_DIR", type=_PathOrUrl(path_type=Path))
@click.option(
    "-o",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; else OUTPUT_DIR/report.html, or ./report.html of a remote directory.",
)
def report(output: str | Path, target: Path | None) -> None:
    """Write what a run did as one HTML page that opens offline: counts, charts, and a browser of records.

    \b
    autoif report output
    autoif report output -o monday.html
    autoif report s3://bucket/run
    """
    from .report import report as make

    click.echo(make(output, target))


@cli.command()
@click.argument("output", metavar="OUTPUT_DIR", type=_PathOrUrl(path_type=Path))
@click.option(
    "--format", "layout", required=True,
    type=click.Choice(["messages", "sharegpt", "alpaca", "dialogs", "dpo", "ranking", "rlvr", "verifiers"]),
    help="Of chats: messages, sharegpt, alpaca, dialogs. Of pairs: dpo (TRL), ranking (LLaMA-Factory). "
    "Of prompts with a ground truth: rlvr (open-instruct), verifiers (a Python package).",
)  # fmt: skip
@click.option("--to", "target", type=click.Path(path_type=Path), help="A .jsonl or .parquet file, or a folder.")
@click.option("--push-to-hub", "repository", metavar="REPO", help="A data set's repository, NAME/DATASET.")
@click.option("--public", is_flag=True, help="Let everybody see a repository that is made for it.")
@click.option("--keep", is_flag=True, help="Also the columns id and metadata.")
@click.option("--license", "licence", default="", help="Of the data, for its card: apache-2.0, cc-by-4.0.")
def export(
    output: str | Path, layout: str, target: Path | None, repository: str | None, public: bool, keep: bool,
    licence: str,
) -> None:  # fmt: skip
    """Write a run's records in a layout that trainers read.

    A folder gets a card with the run's recipe, seed, counts and versions, and loads with `datasets`.

    \b
    autoif export output --format messages --to sft.jsonl
    autoif export output --format sharegpt --to my_dataset --license cc-by-4.0
    autoif export output/dpo --format dpo --to dpo.jsonl
    autoif export output/rlvr --format verifiers --to autoif-constraints
    autoif export s3://bucket/run --format messages --to sft.jsonl
    """
    from .export import export as write
    from .export import export_to_hub

    if (target is None) == (repository is None):
        raise RecipeError("name one place: --to FILE or FOLDER, or --push-to-hub REPO")
    if target is not None:
        click.echo(f"{write(output, layout, target, keep, licence)} records in {target}")
    elif repository is not None:
        count, place = export_to_hub(output, layout, repository, keep, licence, public)
        click.echo(f"{count} records in {place}")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def teacher(arguments: tuple[str, ...]) -> None:
    """Serve the simulated teacher: `autoif teacher --port 8000` (`--help` lists its faults and latencies)."""
    from .teacher.__main__ import main as serve

    sys.exit(serve(list(arguments)))


@cli.command()
def doctor() -> None:
    """Show what this machine can do to contain model-written code. Exit code 1 if the sandbox would refuse to run.

    \b
    autoif doctor
    """
    import asyncio

    from .sandbox import Sandbox, SandboxConfig
    from .sandbox import doctor as examine

    for layer in examine():
        click.echo(f"{'ok     ' if layer.ok else 'MISSING'}  {layer.name}{f': {layer.detail}' if layer.detail else ''}")

    async def start() -> None:
        async with Sandbox(SandboxConfig()):
            pass

    asyncio.run(start())  # raises, with what to do, where a layer that containment rests on is missing
    click.echo("The sandbox runs here.")


def main() -> NoReturn:
    """The `autoif` command.

    Exit codes: 0 done, 1 failed, 2 wrong recipe or usage, 3 no model, 4 a budget is used up, 130 stopped.
    """
    try:
        cli(standalone_mode=False)
        sys.exit(0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AutoIFError as error:
        listed = isinstance(error, RecipeError) and error.problems  # each begins with its file and line
        click.echo(plain(str(error) if listed else f"error: {error}"), err=True)  # a server's words may stand in it
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(plain(f"error: {place}{error.strerror or error}"), err=True)
        sys.exit(1)
    except RecursionError:
        click.echo("error: something in these files is nested too deeply to be read", err=True)
        sys.exit(1)
    except MemoryError:
        click.echo("error: the memory does not suffice", err=True)
        sys.exit(1)
    except Exception as error:  # that nobody has thought of
        if os.environ.get("AUTOIF_TRACEBACK"):
            raise
        what = plain(f"{type(error).__name__}: {error}")
        click.echo(f"error: {what}. This is a bug; with AUTOIF_TRACEBACK=1 the same command says where", err=True)
        sys.exit(1)
