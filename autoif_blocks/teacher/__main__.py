"""`python -m autoif_blocks.teacher`: run the simulated teacher; its base URL is the first and only line on stdout."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import fields

from ..orphans import when_orphaned
from .config import TeacherConfig
from .server import serve

# What an option takes whose default is None.
_KINDS: dict[str, type] = {"api_key": str, "max_n": int, "max_slots": int, "capacity": int, "batch_queue": int}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autoif teacher",
        description="An OpenAI-compatible server that plays the model: no download, no key, always the same answers.",
        epilog="autoif teacher --port 8000 --error-429-rate 0.1",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when stdin ends or the parent process is gone"
    )
    for option in fields(TeacherConfig):
        flag, default, text = "--" + option.name.replace("_", "-"), option.default, option.metadata["help"]
        if default is False:
            parser.add_argument(flag, action="store_true", help=text)
        elif isinstance(default, tuple):
            parser.add_argument(
                flag, nargs="*", default=default, metavar="NAME", help=f"{text} (default: {' '.join(default)})"
            )
        else:
            kind = _KINDS.get(option.name, type(default))
            shown = "" if default is None else f" (default: {default})"
            parser.add_argument(flag, type=kind, default=default, metavar=kind.__name__.upper(), help=text + shown)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    host, port, exit_with_parent = options.pop("host"), options.pop("port"), options.pop("exit_with_parent")
    if not 0 <= port < 65536:
        parser.error(f"--port must be from 0 to 65535, got {port}")
    try:
        config = TeacherConfig(**{**options, "models": tuple(options["models"])})
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_until_told(config, host, port, exit_with_parent))
    except OSError as error:
        print(f"cannot listen on {host}:{port}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _until_told(config: TeacherConfig, host: str, port: int, exit_with_parent: bool) -> None:
    """Serve until SIGTERM, or until the parent is gone if asked."""
    loop = asyncio.get_running_loop()
    server = asyncio.ensure_future(serve(config, host, port))
    loop.add_signal_handler(signal.SIGTERM, server.cancel)
    if exit_with_parent:

        def stop() -> None:
            # The loop may have ended by itself meanwhile; there is nothing left to stop then.
            if not loop.is_closed():
                loop.call_soon_threadsafe(server.cancel)

        when_orphaned(stop)
    try:
        await server
    except asyncio.CancelledError:
        if not server.cancelled():
            raise


if __name__ == "__main__":
    sys.exit(main())
