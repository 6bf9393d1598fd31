"""Whether a long run stays as it began: memory, speed, open files, threads, and nothing left behind.

    python tests/benchmarks/soak.py [--responses 100000] [--latency 0.005]

The ten steps as `autoif run` does them, against `autoif teacher` in a process of its own. Once a second the run's
processes are looked at, in /proc, and at its end whether any of them is still there.
A tenth of a run is a tenth of its responses; memory is what all of its processes have, the highest within a tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
QUERIES = 240  # in sample_data
A_RESPONSE = "sharegpt_query"


class Sample(NamedTuple):
    """What was seen of a run at a moment."""

    seconds: float
    responses: int
    megabytes: float
    files: int
    threads: int
    processes: int


def descendants(main: int) -> set[tuple[int, str]]:
    """The process and those below it, each with the time of its start: a number may be used again."""
    parents, starts = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)], starts[int(folder.name)] = int(told[1]), told[19]
    found = {main} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {(process, starts[process]) for process in found}


def look(main: int, found: set[tuple[int, str]], out: Path, began: float) -> Sample:
    kilobytes = 0
    for process, _ in found:
        with contextlib.suppress(OSError):
            # What processes share after a fork counts once, by parts.
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
    files = threads = 0
    with contextlib.suppress(OSError):
        files = sum(1 for _ in Path(f"/proc/{main}/fd").iterdir())
        threads = sum(1 for _ in Path(f"/proc/{main}/task").iterdir())
    responses = 0
    for status in out.glob(".work/stage-*/*.status.json"):
        with contextlib.suppress(OSError, ValueError):
            for step, _, block, meter in json.loads(status.read_text())["meters"]:
                responses += meter["out"] if (step, block) == (A_RESPONSE, "Respond") else 0
    return Sample(time.monotonic() - began, responses, kilobytes / 1024, files, threads, len(found))


@contextlib.contextmanager
def teacher(latency: float) -> Iterator[str]:
    command = [sys.executable, "-m", "autoif_blocks.teacher", "--port", "0", "--exit-with-parent"]
    with subprocess.Popen(
        [*command, "--latency", str(latency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def soak(responses: int, latency: float) -> list[Sample]:
    """The samples of a run; fails if the run does."""
    pairs = 0.75 * responses  # of an instruction and a query, each answered twice; one in three instructions is dropped
    instructions = max(4, round(pairs / QUERIES))
    options = {
        "steps.augment_instructions.self_instruct.n": max(1, instructions // 3),
        "steps.sharegpt_query.join_queries.per_record": min(
            QUERIES, max(1, round(1.5 * responses / (2 * instructions)))
        ),
        "steps.sharegpt_query.join_queries.min_chars": 1,
        "steps.sharegpt_query.join_queries.max_chars": 100_000,
    }
    with tempfile.TemporaryDirectory() as folder, teacher(latency) as url:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "autoif_blocks", "run", str(ROOT / "autoif.yaml"), "--base-url", url]
        command += [word for path, value in options.items() for word in ("--set", f"{path}={value}")]
        command += ["--limit", str(instructions), "--output-dir", str(out), "--quiet"]
        samples = []
        seen: set[tuple[int, str]] = set()
        began = time.monotonic()
        with subprocess.Popen(command) as run:
            while run.poll() is None:
                seen |= (now := descendants(run.pid))
                sample = look(run.pid, now, out, began)
                before = samples[-1].responses if samples else 0
                samples.append(sample._replace(responses=max(before, sample.responses)))  # none once it tidies up
                time.sleep(min(1.0, responses / 20_000))
        if run.returncode:
            raise SystemExit(f"the run ended with exit code {run.returncode}")
        left = len(seen & {one for process, _ in seen for one in descendants(process)})
        result = json.loads((out / "run.json").read_text())
    last = next(step for step in result["steps"] if step["name"] == A_RESPONSE)["out"]
    samples.append(Sample(time.monotonic() - began, last, 0.0, 0, 0, left))
    return samples


def tell(samples: list[Sample]) -> None:
    *during, end = samples
    total = end.responses
    tenths = [
        [sample for sample in during if total * i / 10 < sample.responses <= total * (i + 1) / 10] for i in range(10)
    ]
    print(f"{total} responses in {end.seconds:.0f} s, {total / end.seconds:.0f}/s in all")
    print("| tenth | responses/s | MB | open files | threads | processes |\n|---|---|---|---|---|---|")
    rates, sizes = [], []
    for number, tenth in enumerate(tenths, 1):
        if len(tenth) > 1:
            first, last = tenth[0], tenth[-1]
            rates.append((last.responses - first.responses) / max(1e-9, last.seconds - first.seconds))
            sizes.append(max(sample.megabytes for sample in tenth))
            most = [max(getattr(sample, name) for sample in tenth) for name in ("files", "threads", "processes")]
            print(f"| {number} | {rates[-1]:.0f} | {sizes[-1]:.0f} | {' | '.join(map(str, most))} |")
    if len(rates) > 1:
        print(f"last tenth beside the first: speed {rates[-1] / rates[0]:.2f}, memory {sizes[-1] / sizes[0]:.2f}")
    print(f"processes left behind: {end.processes}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.005)
    given = parser.parse_args()
    tell(soak(given.responses, given.latency))
