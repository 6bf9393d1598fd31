"""Commands about what a run has left, or is making."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import RecipeError
from .options import PathOrUrl


@click.command()
@click.argument("output_dir", type=PathOrUrl(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def status(output_dir: str | Path, as_json: bool) -> None:
    """Show how far the run into OUTPUT_DIR is: every step, every task. Exit code 0 if it is complete, 1 if not.

    From any machine that sees the directory, or may read the remote one, while the run goes on or later.

    \b
    autoif status output
    autoif status s3://bucket/run
    """
    from ..status_command import look_at, show

    found = look_at(output_dir)
    show(found, as_json)
    sys.exit(0 if found.complete else 1)


@click.command()
@click.argument("output", metavar="OUTPUT_DIR", type=PathOrUrl(path_type=Path))
@click.argument("record_id", metavar="ID")
def trace(output: str | Path, record_id: str) -> None:
    """Print a record's whole way, from the seed to its end; its ID stands in the step files.

    \b
    autoif trace output 32254e3a3265e2ecaa81
    """
    from ..lineage_command import trace as show

    show(output, record_id)


@click.command()
@click.argument("output", metavar="OUTPUT_DIR", type=PathOrUrl(path_type=Path))
@click.argument("wanted", metavar="ID|TEXT")
def why(output: str | Path, wanted: str) -> None:
    """Say at which step a record was dropped, why, and on what evidence. TEXT finds records by what they hold.

    \b
    autoif why output 32254e3a3265e2ecaa81
    autoif why output 'stripped screw'
    """
    from ..lineage_command import why as tell

    tell(output, wanted)


@click.command()
@click.argument("output", metavar="OUTPUT_DIR", type=PathOrUrl(path_type=Path))
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
    from ..report import report as make

    click.echo(make(output, target))


@click.command()
@click.argument("output", metavar="OUTPUT_DIR", type=PathOrUrl(path_type=Path))
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
    from ..export import export as write
    from ..export import export_to_hub

    if (target is None) == (repository is None):
        raise RecipeError("name one place: --to FILE or FOLDER, or --push-to-hub REPO")
    if target is not None:
        click.echo(f"{write(output, layout, target, keep, licence)} records in {target}")
    elif repository is not None:
        count, place = export_to_hub(output, layout, repository, keep, licence, public)
        click.echo(f"{count} records in {place}")
