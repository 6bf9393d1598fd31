"""The same work done by others: three chained model steps, each prompt holding the answer of the step before.

    python tests/benchmarks/peers/bench_peers.py                            all, 600 records, 64 slots
    python tests/benchmarks/peers/bench_peers.py --only bare ours           without any installation

The server is the simulated teacher in a process of its own, with 64 slots whatever a client sends, its latencies
lognormal with a mean of 0.5 s and sigma 0.8; a request takes as long for everyone. Each driver runs in a process of its
own, a peer's in an environment of its own that is made with pip from PyPI and kept in --venvs. What cannot be installed
or run is shown with its reason.

`share` is the time of a simulated greedy scheduler, which has no barriers and takes no time itself, divided by the wall
time. Wall time and CPU (of the driver and its children, not of the server) are those of the run alone, after a first
run over two records that imports and compiles whatever is needed. `x bare` compares the CPU with that of the bare loop
of asyncio and aiohttp in the same table. A record is lost unless all three answers are there and the server saw the
first in the second prompt and the second in the third. `requests` counts those of the work that the server saw.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from job import STEPS, Row  # noqa: E402
from recording_teacher import asked, seconds_for  # noqa: E402
from schedule import Request, bound, greedy  # noqa: E402

from autoif_blocks.teacher.config import TeacherConfig  # noqa: E402

# Versions are those of the numbers in docs/performance.md. datatrove's extra `inference` also wants vllm and sglang,
# which an endpoint does not need; distilabel imports requests and does not require it.
PEERS: dict[str, list[str]] = {
    "bare": [],
    "ours": [],
    "openai": ["openai[aiohttp]==3.57.0"],
    "datatrove": ["datatrove[io]==0.10.1", "httpx", "aiofiles", "aiosqlite", "pandas"],
    "sdg_hub": ["sdg-hub==0.9.4"],
    "curator": ["bespokelabs-curator==0.1.31"],
    "data_designer": ["data-designer==0.9.7"],
    "distilabel": ["distilabel[openai]==1.5.3", "requests"],
}
# What is run, and how: PEER or PEER+VARIANT.
RUNS = ["bare", "ours", "openai", "openai+aiohttp", "datatrove", "datatrove+resume", "sdg_hub", "curator"]
RUNS += ["data_designer", "data_designer+defaults", "distilabel", "distilabel+one_batch"]
# Curator and Data Designer count tokens with tiktoken, which would fetch its table from the network; this package, of
# which nothing is run for them, holds a copy.
TOKEN_TABLE = ["litellm==1.83.7"]
NEED_TOKEN_TABLE = ["curator", "data_designer"]
# By their documentation: no telemetry, nothing from a hub, no viewer in the browser, no bars.
QUIET = {
    "TELEMETRY_ENABLED": "false",  # curator
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "NEMO_TELEMETRY_ENABLED": "false",  # data_designer
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # sdg_hub, curator
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


class Unable(Exception):
    """A peer that could not be installed or did not finish; says why."""


@dataclass
class Outcome:
    wall: float
    cpu: float
    lost: int
    asked: int
    """requests of the work that the server saw, repeated ones included"""


def last_line(lines: Iterable[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"


def install(folder: Path, wanted: Sequence[str], *commands: Sequence[str]) -> None:
    """Run the commands that fill a folder, unless that was done for the same packages before."""
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return
    for command in commands:
        done = subprocess.run([*command], capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unable(f"not installed: {last_line(errors or done.stderr.splitlines())}")
    stamp.write_text("\n".join(wanted))


def python_of(name: str, venvs: Path) -> str:
    """The interpreter of a peer's environment, which is made where it is missing or holds other versions."""
    folder, wanted = venvs / name, PEERS[name]
    if not wanted:
        return sys.executable
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", *wanted]
    install(folder, wanted, [sys.executable, "-m", "venv", "--clear", str(folder)], pip)
    return python


def token_table(venvs: Path) -> str:
    """The folder that tiktoken is to look into."""
    folder = venvs / "token_table"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *TOKEN_TABLE]
    install(folder, TOKEN_TABLE, pip)
    return str(folder / "litellm" / "litellm_core_utils" / "tokenizers")


@contextmanager
def teacher(config: TeacherConfig, notes: Path) -> Iterator[str]:
    """A fresh server; it writes the bodies that came to `notes` in the end."""
    command = [sys.executable, str(FOLDER / "recording_teacher.py"), str(notes), "--port", "0", "--exit-with-parent"]
    command += ["--latency", str(config.latency), "--latency-sigma", str(config.latency_sigma)]
    command += ["--max-slots", str(config.max_slots), "--hostile-rate", str(config.hostile_rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def drive(command: Sequence[str], home: str, environment: dict[str, str], limit: float) -> None:
    """Run a driver in a home of its own, where no run before it has left anything."""
    said = Path(home, "said.txt")
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": home, **QUIET, **environment}
    with said.open("w") as log:
        driver = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            code = driver.wait(limit)
        except subprocess.TimeoutExpired:
            raise Unable(f"not finished within {limit:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)  # a driver's children may outlive it
            driver.wait()
    if code:
        raise Unable(f"exit code {code}: {last_line(said.read_text(errors='replace').splitlines())}")


def measure(name: str, config: TeacherConfig, records: int, venvs: Path, limit: float) -> Outcome:
    """Install what is needed, run a driver beside a fresh server, and look at what came of it."""
    peer, *variant = name.split("+")
    python = python_of(peer, venvs)
    environment = {"TIKTOKEN_CACHE_DIR": token_table(venvs)} if peer in NEED_TOKEN_TABLE else {}
    with tempfile.TemporaryDirectory() as home:
        notes, out = Path(home, "notes.json"), Path(home, "out.json")
        with teacher(config, notes) as url:
            work = [str(out), url, str(config.max_slots), str(records), *variant]
            drive([python, str(FOLDER / f"peer_{peer}.py"), *work], home, environment, limit)
        result = json.loads(out.read_text())
        prompts: dict[tuple[int, int], list[str]] = defaultdict(list)
        for body in json.loads(notes.read_text()):
            what = asked(body.encode())
            if what and what[1] < records:
                prompts[what].append(json.dumps(json.loads(body)["messages"]))
    complete = {int(row["number"]) for row in result["rows"] if is_complete(row, prompts)}
    asks = sum(map(len, prompts.values()))
    return Outcome(result["wall"], result["cpu"], records - len(complete), asks)


def is_complete(row: Row, prompts: Mapping[tuple[int, int], list[str]]) -> bool:
    """Whether a row has its three answers, and each prompt, by step and number, held the answer before."""
    answers: list[Any] = [row.get(field) for field in STEPS]
    return all(isinstance(answer, str) and answer for answer in answers) and all(
        any(json.dumps(answer)[1:-1] in prompt for prompt in prompts.get((step, int(row["number"])), ()))
        for step, answer in enumerate(answers[:-1], 1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--slots", type=int, default=64, help="requests in flight")
    parser.add_argument("--latency", type=float, default=0.5, help="mean seconds of an answer")
    parser.add_argument("--hostile-rate", type=float, default=0.0, help="a fifth of it are answers with odd characters")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS, metavar="NAME", help=" ".join(RUNS))
    parser.add_argument("--venvs", type=Path, default=Path("~/.cache/autoif-peers"), help="where environments are kept")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a driver is given up")
    options = parser.parse_args()
    config = TeacherConfig(
        latency=options.latency, latency_sigma=0.8, max_slots=options.slots, hostile_rate=options.hostile_rate
    )
    requests = [
        Request(seconds_for(config, step, number), step, [(step - 1) * options.records + number] if step else [])
        for step in range(len(STEPS))
        for number in range(options.records)
    ]
    best = greedy(requests, options.slots)
    print(
        f"{options.records} records, {len(requests)} requests, {options.slots} slots, latency {options.latency:g} s: "
        f"greedy, without overhead {best:.2f} s; bound {bound(requests, options.slots):.2f} s\n"
    )
    print("| what | wall | share | CPU a request | x bare | lost | requests |\n|---|---|---|---|---|---|---|")
    bare = None
    for name in options.only:
        peer, *variant = name.split("+")
        label = ", ".join([*(PEERS[peer] or [peer])[:1], *variant])
        try:
            outcome = measure(name, config, options.records, options.venvs.expanduser(), options.limit)
        except Unable as reason:
            print(f"| {label} | {reason} |", flush=True)
            continue
        bare = outcome.cpu if name == "bare" else bare
        times = f"{outcome.cpu / bare:.1f}" if bare else "?"
        print(
            f"| {label} | {outcome.wall:.1f} s | {best / outcome.wall:.3f} | "
            f"{outcome.cpu / len(requests) * 1e3:.2f} ms | {times} | {outcome.lost} | {outcome.asked} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
