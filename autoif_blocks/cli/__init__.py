"""The command line: what each command takes, and whom it calls."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from ..errors import AutoIFError, RecipeError
from ..plain import plain
from .machine import doctor, teacher
from .recipes import blocks, check, diff, init, schema
from .results import export, report, status, trace, why
from .running import cache, plan, preview, run

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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


for _command in (
    init, check, diff, blocks, schema, run, plan, preview, cache, status, trace, why, report, export, teacher, doctor,
):  # fmt: skip
    cli.add_command(_command)


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
