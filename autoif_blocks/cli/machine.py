"""Commands about this machine."""

from __future__ import annotations

import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def teacher(arguments: tuple[str, ...]) -> None:
    """Serve the simulated teacher: `autoif teacher --port 8000` (`--help` lists its faults and latencies)."""
    from ..teacher.__main__ import main as serve

    sys.exit(serve(list(arguments)))


@click.command()
def doctor() -> None:
    """Show what this machine can do to contain model-written code. Exit code 1 if the sandbox would refuse to run.

    \b
    autoif doctor
    """
    import asyncio

    from ..sandbox import Sandbox, SandboxConfig
    from ..sandbox import doctor as examine

    for layer in examine():
        click.echo(f"{'ok     ' if layer.ok else 'MISSING'}  {layer.name}{f': {layer.detail}' if layer.detail else ''}")

    async def start() -> None:
        async with Sandbox(SandboxConfig()):
            pass

    asyncio.run(start())  # raises, with what to do, where a layer that containment rests on is missing
    click.echo("The sandbox runs here.")
