"""`python docs/screens.py [FOLDER]`: run-live.svg and run-done.svg, from a real run of the README's first command.

The command gets a terminal of its own; what it writes there is drawn by rich. A terminal's picture of a moment is what
stands between two of the live view's redrawings.
"""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
from fcntl import ioctl
from io import StringIO
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COMMAND = ["autoif", "run", "autoif.yaml"]
ROWS, COLUMNS = 40, 110
_REDRAWN = re.compile(r"(?:\r?\x1b\[(?:2K|\d*A|\d*J|H|\?25[lh]))+")


def said_by(command: list[str], folder: Path) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PWD": str(folder)}
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        read = bytearray()
        while True:
            try:
                read += os.read(ours, 1 << 16)
            except OSError:  # how Linux tells that the other end is closed
                break
    os.close(ours)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{read.decode()}")
    return read.decode()


def draw(screen: str, path: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(f"$ {' '.join(COMMAND)}\n{screen.strip()}"), soft_wrap=True)
    drawn = console.export_svg(title="AutoIF Blocks")
    # No font of elsewhere: the reader's own.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code", "monospace"))


def main(into: Path = HERE) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("autoif.yaml", "sample_data"):
            (Path(folder) / name).symlink_to(HERE.parent / name)
        head, *frames, end = _REDRAWN.split(
            said_by([str(Path(sys.executable).parent / COMMAND[0]), *COMMAND[1:]], Path(folder)).replace("\r\n", "\n")
        )
    frames = [frame for frame in frames if "sft_data" in frame]
    draw(f"{head.strip()}\n{frames[len(frames) // 2].strip()}", into / "run-live.svg")
    draw(f"{head.strip()}\n{end.strip()}", into / "run-done.svg")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
