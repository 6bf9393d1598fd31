"""What the live view takes of the processor: a run in a terminal of its own beside the same with `--quiet`, in turn.

`python tests/benchmarks/bench_view.py [ROUNDS] [OPTION OF autoif run …]`. The processor's time is that of the run's
processes, the simulated model's not among them, user and system; the terminal is 120 x 50, and is read by this process.
"""

from __future__ import annotations

import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

AUTOIF = Path(__file__).parents[2] / "autoif.yaml"
BARE = [sys.executable, "-m", "autoif_blocks"]


def took(command: list[str]) -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    threading.Thread(target=_read, args=(ours,), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)  # with those of its own processes
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began


def _read(terminal: int) -> None:
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:  # how Linux tells that the other end is closed
        os.close(terminal)


def main(rounds: int, options: list[str]) -> None:
    found: dict[str, list[tuple[float, float]]] = {"view": [], "quiet": []}
    with subprocess.Popen([*BARE, "teacher", "--port", "0", "--latency", "1"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        for _ in range(rounds):
            for kind, seconds in found.items():
                with tempfile.TemporaryDirectory() as folder:
                    where = ["--base-url", url, "--model", "simulated-teacher", "--output-dir", folder, *options]
                    seconds.append(took([*BARE, "run", str(AUTOIF), *where, *(["-q"] if kind == "quiet" else [])]))
                print(f"{kind}: {seconds[-1][0]:.2f} s of the processor in {seconds[-1][1]:.1f} s", flush=True)
        server.terminate()
    view, quiet = (statistics.median(cpu for cpu, _ in found[kind]) for kind in ("view", "quiet"))
    wall = statistics.median(clock for _, clock in found["view"])
    print(f"the view takes {view - quiet:.2f} s of the processor in {wall:.1f} s: {100 * (view - quiet) / wall:.1f}%")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2:])
