"""Starts the simulated teacher beside a run that names no server, and ends it with the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StopRun


@contextmanager
def simulated_teacher(log: Path) -> Iterator[str]:
    """A teacher on a free port of the loopback interface; gives its base URL.

    Raises:
        StopRun: it did not start; the message holds its last words.
    """
    # The child gets no key of the user's: it needs none.
    environment = {name: value for name, value in os.environ.items() if "KEY" not in name and "TOKEN" not in name}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            # -P: no file in the user's folder may stand in for a module. `--models` alone: it answers to any name.
            [sys.executable, "-P", "-m", "autoif_blocks.teacher", "--port", "0", "--exit-with-parent", "--models"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            start_new_session=True,  # Ctrl-C must reach the run alone, so that requests in flight can end
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().decode().strip()
        if not url.startswith("http"):
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing was said"]
            raise StopRun(f"the simulated teacher did not start: {last[0]}")
        yield url
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()
