"""The live view in a real terminal: tmux, which tells what stands on the screen, resizes it and types Ctrl-C.

`.ci/run` installs it and runs these tests; by hand: `apt-get install tmux`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import AUTOIF
from running import teacher

pytestmark = pytest.mark.heavy

NAMES = [
    "augment_instructions", "verification_funcs_cases", "cross_validation", "backtranslator", "backtranslator_filter",
    "sharegpt_query", "query_verification", "score_quality", "score_filter", "sft_data",
]  # fmt: skip
HINT = "Ctrl-C stops; the same command continues"
TASKS = ["--set", "executor.tasks=3", "--set", "executor.workers=2"]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("tmux") is None:
        said = "tmux is not installed: see the head of this file"
        pytest.fail(said) if os.environ.get("AUTOIF_TMUX") == "required" else pytest.skip(said)


class Terminal:
    """A tmux of its own with a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = str(folder / "tmux")
        shell = "env PS1='$ ' LC_ALL=C.UTF-8 sh"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "40", "-c", str(folder), shell)

    def tmux(self, *words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "TMUX"} | {"LC_ALL": "C.UTF-8"}
        command = ["tmux", "-S", self._socket, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    def type(self, text: str) -> None:
        self.tmux("send-keys", text, "Enter")

    def run(self, *more: str) -> None:
        command = [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *more]
        self.type(f"{shlex.join(command)}; echo rc=$?")

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> list[str]:
        return self.tmux("capture-pane", "-p").rstrip("\n").split("\n")

    @property
    def all(self) -> str:
        """What has scrolled off as well."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-")

    def ask(self, what: str) -> str:
        return self.tmux("display-message", "-p", f"#{{{what}}}").strip()

    def wait(self, until: Callable[[list[str]], object], seconds: float = 60) -> list[str]:
        deadline = time.monotonic() + seconds
        while not until(screen := self.screen):
            assert time.monotonic() < deadline, "\n".join(screen)
            time.sleep(0.1)
        return screen

    def ended(self, code: int) -> list[str]:
        screen = self.wait(lambda screen: any(re.fullmatch(r"rc=\d+", line) for line in screen))
        assert f"rc={code}" in screen, "\n".join(screen)
        return screen


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    ours = Terminal(tmp_path)
    yield ours
    ours.tmux("kill-server")


def bars(screen: list[str]) -> list[str]:
    """The first lines of the frames that are on the screen."""
    return [line for line in screen if "ETA " in line or line.startswith("━")]


def steps_shown(screen: list[str]) -> list[str]:
    return [NAMES[int(found[1]) - 1] for line in screen if (found := re.match(r"( [1-9]|10) [a-z]\w{3}", line))]


def under_way(screen: list[str]) -> bool:
    """Whether the judge is asked."""
    return any(re.match(r" 8 score.* [1-9]\d* +[1-9]\d* ", line) for line in screen)


@pytest.mark.long
def test_it_follows_the_size_of_the_terminal(terminal: Terminal) -> None:
    """Several tasks: what is on the screen is one frame that fits, whatever the size was before."""
    with teacher("--latency", "0.7") as url:
        where = ["--base-url", url, "--model", "simulated-teacher", "--limit", "30", "--output-dir", "out"]
        terminal.run(*where, *TASKS, "--set", "models.teacher.max_concurrency=16")
        screen = terminal.wait(under_way)
        assert [name for name in NAMES if any(name in line for line in screen)] == NAMES
        assert any(re.match(r"judge · 127.* · \d+ in flight, at most \d+", line) for line in screen)
        assert any(line.startswith("dropped: ") for line in screen)
        assert any(re.match(r"━*─*  \d+%  ETA (about|\?)", line) for line in screen)
        for width, height in [(62, 16), (30, 9), (200, 50), (24, 5), (80, 24), (110, 14), (110, 40)]:
            terminal.resize(width, height)
            time.sleep(1.2)
            screen = terminal.wait(lambda screen: len(bars(screen)) == 1, 10)
            shown = steps_shown(screen)
            assert len(set(shown)) == len(shown), screen  # nothing is left of an earlier frame
            assert sum(HINT in line for line in screen) == (height >= 18 and width >= 80), screen
            assert sum(line.startswith("step ") for line in screen) == (height >= 13), screen
            if height >= 16:
                assert len(shown) == 10
        # A frame that is drawn over and over leaves nothing behind.
        before = terminal.ask("history_size")
        time.sleep(2)
        assert terminal.ask("history_size") == before
        terminal.wait(lambda screen: any("ETA about" in line for line in screen))
        screen = terminal.ended(0)
    assert not bars(screen)
    assert not any(HINT in line for line in screen)
    assert steps_shown(screen) == NAMES  # the table of the end, once
    assert terminal.ask("cursor_flag") == "1"
    # What datatrove says of its tasks stands in the logs alone.
    logs = "".join(path.read_text() for path in (terminal.folder / "out" / "logs").rglob("*.log"))
    assert "| INFO " in logs
    assert "INFO" not in terminal.all
    assert "datatrove" not in terminal.all


@pytest.mark.long
def test_a_tall_recipe_on_a_small_screen_stands_still(terminal: Terminal) -> None:
    """Between two frames nothing is cleared and nothing scrolls: what would flicker."""
    terminal.resize(90, 8)
    with teacher("--latency", "1.5") as url:
        where = ["--base-url", url, "--model", "simulated-teacher", "--limit", "8", "--output-dir", "out"]
        terminal.run(*where)
        terminal.wait(lambda screen: any("… " in line and " more" in line for line in screen))
        said = terminal.folder / "said"
        time.sleep(1)
        terminal.tmux("pipe-pane", f"cat > {said}")
        before = terminal.ask("history_size")
        time.sleep(3)
        terminal.tmux("pipe-pane")
        assert terminal.ask("history_size") == before
        written = said.read_text()
        frames = written.count("gone")
        assert 3 <= frames <= 7
        assert "\x1b[2J" not in written
        assert "\x1b[H" not in written
        assert written.count("\n") <= 7 * frames  # of eight lines the last is left free
        assert any(" score" in line or " verif" in line or "query" in line for line in terminal.screen)
        terminal.ended(0)


@pytest.mark.parametrize("tasks", [[], pytest.param(TASKS, marks=pytest.mark.long)], ids=["one", "several"])
def test_ctrl_c_leaves_the_terminal_as_it_was(terminal: Terminal, tasks: list[str]) -> None:
    """And the same command goes on, with what is in the cache."""
    with teacher("--latency", "0.5") as url:
        where = ["--base-url", url, "--model", "simulated-teacher", "--limit", "20", "--output-dir", "out", *tasks]
        terminal.run(*where, "--set", "flush_interval=0.2")
        terminal.wait(under_way)
        terminal.tmux("send-keys", "C-c")
        terminal.wait(lambda screen: any(line.startswith("stopping: nothing new is asked") for line in screen))
        terminal.ended(130)
        assert not bars(terminal.all.split("\n"))  # nor has a frame scrolled off
        assert terminal.ask("cursor_flag") == "1"
        assert json.loads((terminal.folder / "out" / "run.json").read_text())["state"] == "stopped"
        terminal.type("clear; stty -a | grep -o ' echo '")
        terminal.wait(lambda screen: " echo" in screen)

        terminal.type("clear")
        terminal.run(*where)
        # The share of the second step's completions that came from the cache.
        terminal.wait(lambda screen: any(re.match(r" 2 verif.* ([5-9]\d|100)%$", line) for line in screen))
        terminal.ended(0)
        assert terminal.ask("cursor_flag") == "1"


def test_with_a_target_it_shows_how_many_are_accepted(terminal: Terminal) -> None:
    with teacher("--latency", "0.3") as url:
        where = ["--base-url", url, "--model", "simulated-teacher", "--output-dir", "out", "--target", "450"]
        terminal.run(*where, "--set", "steps.augment_instructions.self_instruct.n=1")
        terminal.wait(lambda screen: any(re.search(r"accepted [1-9]\d* of 450  ETA ", line) for line in screen))
        terminal.wait(lambda screen: any(line.startswith("round 1: ") for line in screen))
        terminal.wait(lambda screen: any(re.search(r"accepted [1-9]\d* of 450  ETA ", line) for line in screen))
        terminal.ended(0)
    assert len(re.findall(r"^round 1: ", terminal.all, re.MULTILINE)) == 1
