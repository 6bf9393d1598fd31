"""Bad luck at random moments: what is told, what is lost, and whether the same command then ends with the same bytes.

    python tests/benchmarks/chaos.py [--times 4] [--seed 0] [--pause 30] [--jobs 1] [FAULT ...]

Each trial is `autoif run` in a process of its own against `autoif teacher` in another. A fault strikes at a moment that
is drawn from the seed: from the start of the process to a little after the end of a run that nothing happens to. The
run must then go on to its end, or end with one clear sentence; what made it fail is taken away, and the same command
given again. Lost records are rows of an undisturbed run's files that are not in the result.

Root can mount a small disk, and gives up its right to ignore permissions; a jumping clock needs a C compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from chaos_faults import FAULTS, GONE_ON, LATENCY, TASKS, Trial, Unfit, Whole, autoif  # noqa: E402
from conftest import tree  # noqa: E402
from running import counts_add_up, served  # noqa: E402


class Outcome(NamedTuple):
    """What became of a trial; `wrong` says what should not have been, `unfit` why it was not tried."""

    fault: str
    number: int
    said: list[str]
    ended: str = ""
    lost: int = 0
    wrong: str = ""
    unfit: str = ""


def undisturbed(url: str) -> Whole:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run(autoif(Path(folder) / "out", url), check=True)
        return Whole(tree(Path(folder) / "out"), time.monotonic() - began)


def attempt(fault: str, number: int, seed: int, url: str, whole: Whole, pause: float) -> Outcome:
    """One trial: the fault, what the run says, the same command again, and what is in the files."""
    luck = random.Random(f"{seed} {fault} {number}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, contextlib.ExitStack() as undo:
        trial = Trial(luck, Path(folder) / "out", url, whole, pause, undo)
        ended, wrong = "", ""
        if luck.random() < 0.3:
            trial.more = TASKS
            trial.say("two tasks")
        try:
            ended = FAULTS[fault](trial)
            if ended != GONE_ON and (again := trial.ended(trial.start())) != GONE_ON:
                wrong = f"the same command again {again}"
            counts_add_up(trial.out)
        except Unfit as error:
            return Outcome(fault, number, trial.said, unfit=str(error))
        except (AssertionError, OSError) as error:
            wrong = f"{type(error).__name__}: {error}"
        lost, others = compared(whole.files, tree(trial.out) if trial.out.exists() else {})
    return Outcome(fault, number, trial.said, ended, lost, "; ".join(filter(None, [wrong, others])))


def compared(whole: dict[str, bytes], found: dict[str, bytes]) -> tuple[int, str]:
    """How many rows are not there, and which files have other bytes."""
    lost = sum((Counter(rows.splitlines()) - Counter(found.get(name, b"").splitlines())).total()
               for name, rows in whole.items())  # fmt: skip
    others = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
    return lost, f"other bytes in {', '.join(others)}" if others else ""


def trials(faults: Iterable[str], times: int, seed: int, pause: float, jobs: int) -> Iterator[Outcome]:
    """All of them as they end, so many side by side."""
    with served(*LATENCY) as (_, url), ThreadPoolExecutor(jobs) as pool:
        # As many side by side as later, or the moments would all lie near the beginning.
        whole = max(pool.map(undisturbed, [url] * jobs), key=lambda one: one.seconds)
        rows = sum(len(content.splitlines()) for content in whole.files.values())
        tell(f"seed {seed}; a run that nothing happens to: {whole.seconds:.1f} s, {rows} rows in its files")
        begun = [
            pool.submit(attempt, fault, number, seed, url, whole, pause)
            for fault in faults
            for number in range(1, times + 1)
        ]
        try:
            for future in begun:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # by Ctrl-C, say


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Markdown, a row for each fault."""
    yield "| fault | tried | survived | lost records | the run |\n|---|---|---|---|---|"
    for fault in dict.fromkeys(one.fault for one in outcomes):
        ours = [one for one in outcomes if one.fault == fault]
        tried = [one for one in ours if not one.unfit]
        survived = sum(not one.wrong for one in tried)
        how = Counter(one.ended or "failed" for one in tried)
        told = ", ".join(f"{ended} {count} x" for ended, count in how.most_common()) or ours[0].unfit
        yield f"| {fault} | {len(tried)} | {survived} | {sum(one.lost for one in tried)} | {told} |"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(given: argparse.Namespace) -> int:
    outcomes = []
    for one in trials(given.faults or FAULTS, given.times, given.seed, given.pause, given.jobs):
        outcomes.append(one)
        end = one.unfit or one.wrong or (one.ended if one.ended == GONE_ON else f"{one.ended}, then continued")
        tell(f"{'LOST ' if one.wrong else ''}{one.fault} {one.number}/{given.times}: {'; '.join([*one.said, end])}")
    print("\n".join(table(outcomes)))
    return int(any(one.wrong or one.lost for one in outcomes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"all, or some of: {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, default=4, help="trials of each fault")
    parser.add_argument("--seed", type=int, default=0, help="what the moments are drawn from")
    parser.add_argument("--pause", type=float, default=30.0, help="seconds that SIGSTOP lasts")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side")
    given = parser.parse_args()
    if unknown := set(given.faults) - set(FAULTS):
        parser.error(f"no fault {min(unknown)!r}; there are {', '.join(FAULTS)}")
    return given


if __name__ == "__main__":
    sys.exit(main(arguments()))
