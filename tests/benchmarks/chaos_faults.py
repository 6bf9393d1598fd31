"""What may happen to a run, at a moment that is drawn: see `chaos.py`, which tries all of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conftest import AUTOIF
from running import AS_ANYBODY, kill, served
from soak import descendants

CLOCK = Path(__file__).with_name("clock.c")

FEW = {
    "steps.augment_instructions.self_instruct.n": "1",
    "steps.sharegpt_query.join_queries.per_record": "6",
    "flush_interval": "0.2",
}
LATENCY = ("--latency", "0.2")
PATIENCE = 120.0  # seconds until a run that does not end is a failure
KEY = "sesame"
DISK = 32 << 20
NOT_A_SENTENCE = ("Traceback", "This is a bug", "not foreseen")
TASKS = ("--set", "executor.tasks=2", "--set", "executor.workers=2")
GONE_ON, TOLD, KILLED = "went on", "said why", "was killed"


class Unfit(Exception):
    """This machine cannot bring a fault about."""


@dataclass(frozen=True)
class Whole:
    """A run that nothing happens to."""

    files: dict[str, bytes]
    seconds: float


@dataclass
class Trial:
    """A run to which one thing happens. What must be undone, whatever becomes of it, is pushed on `undo`."""

    luck: random.Random
    out: Path
    url: str
    whole: Whole
    pause: float
    undo: contextlib.ExitStack
    environment: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    """what stands before the command"""
    more: tuple[str, ...] = ()
    """options that change no byte"""
    said: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        command = [*self.before, *autoif(self.out, self.url), *self.more]
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)

    def reached(self, fit: Callable[[], object] = lambda: True) -> subprocess.Popen[str]:
        """A run at a moment, or at the first one after it that is fit. If the run has ended by then, another one."""
        while True:
            run, began = self.start(), time.monotonic()
            time.sleep(self.luck.random() * self.whole.seconds)
            while run.poll() is None and not fit():
                time.sleep(0.01)
            if run.poll() is None:
                self.say(f"at {time.monotonic() - began:.2f} s")
                return run
            self.begin_anew(run)

    def begin_anew(self, run: subprocess.Popen[str]) -> None:
        assert self.ended(run) == GONE_ON
        for path in self.out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def strike(self, way: Callable[[subprocess.Popen[str]], object]) -> str:
        """Lets something happen to a run at a moment, and tells how it ended."""
        way(run := self.reached())
        return self.ended(run)

    def kill(self, fit: Callable[[], object] = lambda: True) -> str:
        """Kills a run at a moment."""
        run = self.reached(fit)
        group = self.luck.random() < 0.5
        self.say("kill -9, all of its group" if group else "kill -9")
        kill(run, group)
        return KILLED

    def ended(self, run: subprocess.Popen[str]) -> str:
        try:
            said = run.communicate(timeout=PATIENCE)[1].strip()
        except subprocess.TimeoutExpired:
            kill(run, whole_group=True)
            raise AssertionError(f"no end in {PATIENCE:.0f} s") from None
        if run.returncode == 0:
            assert said == "", f"exit code 0, but: {said}"
            return GONE_ON
        assert run.returncode in (1, 2, 3), f"exit code {run.returncode}: {said[-2000:]}"
        assert not any(word in said for word in NOT_A_SENTENCE), said[-2000:]
        assert said.startswith("error: "), said[-2000:]
        assert len(said.splitlines()) == 1, said[-2000:]
        self.say(f"exit code {run.returncode}: {said}")
        return TOLD

    def say(self, text: str) -> None:
        self.said.append(text)

    @property
    def cache(self) -> Path:
        return self.out / "cache" / "completions.sqlite"

    def cache_files(self) -> list[Path]:
        """The cache and its journal, if they hold something."""
        files = (self.cache, self.cache.with_name(f"{self.cache.name}-wal"))
        return [path for path in files if path.exists() and path.stat().st_size]


def autoif(out: Path, url: str) -> list[str]:
    options = [word for path, value in FEW.items() for word in ("--set", f"{path}={value}")]
    command = [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *options, "--limit", "4", "--quiet"]
    return [*command, "--base-url", url, "--output-dir", str(out)]


def damaged(trial: Trial, damage: Callable[[Path], object]) -> str:
    """The cache or its journal is damaged while a run uses it, or after that was killed."""

    def strike() -> None:
        found = trial.cache_files()
        for path in trial.luck.sample(found, trial.luck.randint(1, len(found))):
            trial.say(path.name)
            damage(path)

    if trial.luck.random() < 0.5:
        run = trial.reached(trial.cache_files)
        strike()
        return trial.ended(run)
    ended = trial.kill(trial.cache_files)
    strike()
    return ended


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def port_of(url: str) -> str:
    return url.split(":")[2].split("/")[0]


# The faults: each gives how the run ended, or several runs did


def run_is_killed(trial: Trial) -> str:
    return trial.kill()


def worker_is_killed(trial: Trial) -> str:
    """A sandbox worker: one that runs functions, or one that has not quite started."""

    while True:
        run = trial.reached()
        while run.poll() is None:
            if workers := [pid for pid, _ in sorted(descendants(run.pid)) if b"zygote" in cmdline(pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(trial.luck.choice(workers), signal.SIGKILL)
                    return trial.ended(run)
            time.sleep(trial.luck.uniform(0, 0.02))
        trial.begin_anew(run)


def server_is_killed(trial: Trial) -> str:
    """And comes back after a while."""
    server, trial.url = trial.undo.enter_context(served(*LATENCY))

    def strike(run: subprocess.Popen[str]) -> None:
        server.kill()
        server.wait()
        time.sleep(trial.luck.uniform(0, 3))
        trial.undo.enter_context(served(*LATENCY, "--port", port_of(trial.url)))

    return trial.strike(strike)


def disk_is_full(trial: Trial) -> str:
    """But for some kilobytes at most. Afterwards there is room again."""
    trial.out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(trial.out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Unfit("only root can mount a small disk")
    # Lazily: nothing may hold a folder that is to be deleted.
    trial.undo.callback(subprocess.run, ["umount", "-l", str(trial.out)], check=True)
    filler = trial.out / "filler"

    def strike(run: subprocess.Popen[str]) -> None:
        room = trial.luck.choice([0, 4, 16, 64, 256]) << 10
        trial.say(f"{room >> 10} KB left")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            file.write(bytes(max(0, shutil.disk_usage(trial.out).free - room)))

    try:
        return trial.strike(strike)
    finally:
        filler.unlink(missing_ok=True)


def output_is_read_only(trial: Trial) -> str:
    trial.before = AS_ANYBODY
    trial.out.mkdir()

    def allow(writing: bool) -> None:
        for path in [trial.out, *trial.out.rglob("*")]:
            with contextlib.suppress(FileNotFoundError):  # the run goes on meanwhile
                path.chmod(path.stat().st_mode | 0o200 if writing else path.stat().st_mode & ~0o222)

    try:
        return trial.strike(lambda run: allow(False))
    finally:
        allow(True)


def cache_has_other_bits(trial: Trial) -> str:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        with path.open("r+b") as file:
            for at in trial.luck.sample(range(len(content)), trial.luck.randint(1, 8)):
                file.seek(at)
                file.write(bytes([content[at] ^ 1 << trial.luck.randrange(8)]))

    return damaged(trial, flip)


def cache_is_cut(trial: Trial) -> str:
    return damaged(trial, lambda path: os.truncate(path, trial.luck.randrange(path.stat().st_size)))


def cache_is_of_another_version(trial: Trial) -> str:
    """A newer one, with another table, in its place."""
    trial.kill(trial.cache_files)
    aside = trial.out.with_name("aside")
    shutil.copytree(trial.cache.parent, aside)
    with contextlib.closing(sqlite3.connect(trial.cache)) as db:
        db.executescript("CREATE TABLE of_the_future (x); PRAGMA user_version=99")
    ended = trial.ended(trial.start())
    assert ended == TOLD, "a cache of another version was used"
    shutil.rmtree(trial.cache.parent)
    aside.rename(trial.cache.parent)
    return ended


def clock_jumps(trial: Trial) -> str:
    """By a minute to a year, ahead or back."""
    library, clock = trial.out.with_suffix(".so"), trial.out.with_suffix(".clock")
    if shutil.which("cc") is None:
        raise Unfit("no C compiler is here")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, CLOCK, "-ldl"], check=True)
    clock.write_bytes(bytes(8))
    trial.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(clock)}

    def strike(run: subprocess.Popen[str]) -> None:
        seconds = trial.luck.choice([-1, 1]) * trial.luck.choice([60, 3600, 86_400, 31_536_000])
        trial.say(f"by {seconds} s")
        with clock.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    return trial.strike(strike)


def another_run_begins(trial: Trial) -> str:
    """In the same directory: one of them ends well, the other says that it cannot."""
    first = trial.reached()
    ended = [trial.ended(run) for run in (trial.start(), first)]
    assert GONE_ON in ended
    return max(ended, key=[GONE_ON, TOLD].index)


def run_stands_still(trial: Trial) -> str:
    """As with Ctrl-Z, or with all that it has started, as when a machine is suspended."""

    def strike(run: subprocess.Popen[str]) -> None:
        everything = [pid for pid, _ in descendants(run.pid)]
        stopped = trial.luck.choice([everything, [pid for pid in everything if os.getpgid(pid) == run.pid]])
        trial.say(f"{len(stopped)} of {len(everything)} processes")
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(trial.pause if number == signal.SIGSTOP else 0)

    return trial.strike(strike)


def key_is_gone(trial: Trial) -> str:
    """From the environment, when the command is given again; or the server takes it no more, from a moment on."""
    keyed = [*LATENCY, "--api-key"]
    server, trial.url = trial.undo.enter_context(served(*keyed, KEY))
    trial.environment = {"AUTOIF_API_KEY": KEY}

    def swap(key: str) -> None:
        nonlocal server
        server.kill()
        server.wait()
        server, _ = trial.undo.enter_context(served(*keyed, key, "--port", port_of(trial.url)))

    if trial.luck.random() < 0.5:
        ended = trial.strike(lambda run: swap("another"))
        swap(KEY)
        return ended
    trial.kill()
    trial.environment = {"AUTOIF_API_KEY": ""}
    ended = trial.ended(trial.start())
    trial.environment = {"AUTOIF_API_KEY": KEY}
    return ended


FAULTS: dict[str, Callable[[Trial], str]] = {
    "kill -9 the run": run_is_killed,
    "kill -9 a sandbox worker": worker_is_killed,
    "kill -9 the model server": server_is_killed,
    "the disk is full": disk_is_full,
    "the output is read-only": output_is_read_only,
    "bit flips in the cache": cache_has_other_bits,
    "the cache is truncated": cache_is_cut,
    "the cache is of another version": cache_is_of_another_version,
    "the clock jumps": clock_jumps,
    "two runs at once": another_run_begins,
    "SIGSTOP": run_stands_still,
    "no key": key_is_gone,
}
