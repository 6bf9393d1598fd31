"""What this machine can do to contain model-written code."""

from __future__ import annotations

import json
import subprocess
import sys

from autoif_blocks.sandbox.layers import Layer
from autoif_blocks.sandbox.policy import SandboxConfig
from autoif_blocks.sandbox.worker import ENVIRONMENT, command


def doctor(config: SandboxConfig | None = None) -> list[Layer]:
    """(layer, whether it holds here, detail): built and attacked in a process made for it, which then ends."""
    if sys.platform != "linux":
        return [Layer("linux", False, f"this is {sys.platform}; workers need Linux 5.13 or later")]
    settings: dict[str, object] = {"doctor": True, "memory_mb": (config or SandboxConfig()).memory_mb}
    done = subprocess.run(command(settings), env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=60)
    try:
        return [Layer(*layer) for layer in json.loads(done.stdout)]
    except ValueError:
        return [Layer("worker", False, f"it ended with code {done.returncode}: {done.stderr.strip()[-500:]}")]
