"""The process in which one of datatrove's server classes starts its server, and watches it: a life from start to end.

It is a session of its own, so that Ctrl-C reaches the run alone and all that the server has started can be ended with
it. On what was its stdout it says two things, each a line of JSON: {"url": …} when the server answers, and
{"gone": why} when it is over. It ends with the run, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from importlib import import_module
from typing import Any

import aiohttp
from datatrove.pipeline.inference.run_inference import InferenceConfig
from datatrove.pipeline.inference.servers import InferenceServer
from loguru import logger

from ..orphans import when_orphaned
from ..stopping import signal_name

_LOOK = 0.1  # seconds between two looks at the server
_LAST_WORDS = 1.0  # seconds for what an ended server has written to come into the log
GENTLY = 15.0  # seconds for a server to end by itself; datatrove gives its process 10


def main() -> None:
    """Runs until the server has ended or this process is told to."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed here belongs into the log
    try:
        asyncio.run(_until_told(json.loads(sys.argv[1]), out))
    finally:
        os.killpg(0, signal.SIGKILL)  # whatever the server has left behind, and this process with it


async def _until_told(spec: dict[str, Any], out: int) -> None:
    loop = asyncio.get_running_loop()
    life = asyncio.ensure_future(_life(spec, out))
    loop.add_signal_handler(signal.SIGTERM, life.cancel)

    def orphaned() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(life.cancel)
        time.sleep(GENTLY)
        os.killpg(0, signal.SIGKILL)

    when_orphaned(orphaned)
    await asyncio.wait({life})
    if not life.cancelled():
        life.result()


async def _life(spec: dict[str, Any], out: int) -> None:
    def say(**words: str) -> None:
        os.write(out, f"{json.dumps(words)}\n".encode())

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logger.remove()
    # The warnings of this one tell that it waits, many times, or what is told better below.
    logger.add(
        sys.stderr, level="WARNING", format="{message}", filter=lambda it: it["name"] != InferenceServer.__module__
    )
    try:
        server = _server(spec)
    except Exception as error:
        say(gone=f"{type(error).__name__}: {error}")
        return
    async with server:
        answered = False
        while (why := _over(server)) is None:
            if not answered and server._server_ready.done():
                answered = True
                say(url=f"{server.get_base_url().rstrip('/')}/v1")
            await asyncio.sleep(_LOOK)
        if server._server_monitoring_task is not None:
            await asyncio.wait({server._server_monitoring_task}, timeout=_LAST_WORDS)
        say(gone=why)  # before it is cleaned up: who asks it learns at once why no answer comes


def _server(spec: dict[str, Any]) -> Any:
    sys.path += [folder for folder in [spec["folder"]] if folder and folder not in sys.path]
    with socket.socket() as probe:  # two servers of SGLang on a machine would both take the default
        probe.bind(("127.0.0.1", 0))
        master_port = probe.getsockname()[1]
    config = InferenceConfig(
        server_type="custom",  # which chooses the class in datatrove's own runner, and here nothing
        **spec["config"], master_port=master_port,
        # One attempt, for as long as the supervisor has patience.
        server_start_timeout_sec=float("inf"), server_ready_max_attempts=sys.maxsize, server_ready_delay_sec=0.25,
        server_start_max_retries=0,
    )  # fmt: skip
    return _hosted(getattr(import_module(spec["module"]), spec["cls"]))(config, spec["rank"])


def _hosted(cls: type) -> type:
    """The class with its lines in our log, and with its reason for not starting kept."""

    class Hosted(cls):  # type: ignore[misc]
        trouble = ""

        async def start_server(self) -> Any:
            try:
                return await super().start_server()
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                raise

        def server_logger(self) -> logging.Logger:
            return logging.getLogger("server")

        async def is_ready(self) -> bool:
            if cls.is_ready is not InferenceServer.is_ready:  # type: ignore[attr-defined]
                ready: bool = await super().is_ready()
                return ready
            # datatrove's own asks the same, by a library that it does not require.
            try:
                async with (
                    aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session,
                    session.get(f"{self.get_base_url()}/v1/models") as response,
                ):
                    return response.status == 200
            except (aiohttp.ClientError, OSError, TimeoutError):
                return False

    return Hosted


def _over(server: Any) -> str | None:
    """Why the server is over; None if it is not."""
    ready, process, watching = server._server_ready, server._server_process, server._server_monitoring_task
    failure = ready.exception() if ready.done() else None
    if server.trouble:
        return str(server.trouble)
    if process is not None and process.returncode is not None:
        return _ending(process.returncode)
    if failure is None and (process is None or watching is None or not watching.done()):
        return None
    return str(failure) if failure is not None else "its output ended, or told of an error"


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    return f"it was killed by {signal_name(-code)}"


if __name__ == "__main__":
    main()
