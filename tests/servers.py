"""Server classes for `serve: servers.py:Teacher`: real processes that stand in for vLLM and SGLang."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

from datatrove.pipeline.inference.servers import InferenceServer


class Teacher(InferenceServer):
    """The simulated teacher, started and watched in the way of datatrove's own classes."""

    def command(self) -> list[str]:
        options = [f"--{name}={value}" for name, value in self.config.model_kwargs.items()]
        return [sys.executable, "-m", "autoif_blocks.teacher", "--port", str(self._port), *options, "--models"]

    async def start_server(self) -> Any:
        return await asyncio.create_subprocess_exec(
            *self.command(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def monitor_health(self) -> None:
        async def read(stream: asyncio.StreamReader) -> None:
            async for line in stream:
                self.server_logger().info(line.decode().rstrip())

        process = self._server_process
        await asyncio.gather(read(process.stdout), read(process.stderr), process.wait())


class Script(Teacher):
    """Runs the Python code that is the model's name."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.config.model_name_or_path, str(self._port)]


class Llama(Teacher):
    """llama.cpp with a small model."""

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(self._port), "4"]


class NoBinary(Teacher):
    """What is not installed."""

    def command(self) -> list[str]:
        return ["no-such-server"]


class Stubborn(Teacher):
    """Does not end when it is told to, and would leave its child behind."""

    def command(self) -> list[str]:
        return ["sh", "-c", f"trap '' TERM; {shlex.join(super().command())} & wait"]


class Picky(Teacher):
    """Does not like what it is told."""

    def __init__(self, config: Any, rank: int) -> None:
        raise ValueError(f"no {config.model_kwargs['colour']} one")


class Lacking(InferenceServer):
    """Has nothing that it must have."""
