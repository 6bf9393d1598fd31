"""Strong scaling: the same records with 1, 2 and 4 tasks at once, through two chained model steps.

    python tests/benchmarks/bench_scaling.py                      64 requests in flight for each task
    python tests/benchmarks/bench_scaling.py --latency 0.02 --concurrency 256 --records 16000   all that cores can do

The simulated teacher answers after a constant time, in a process of its own, and has slots for all that is asked: the
tasks are what limits, or the cores that they share with the teacher, whose processor time stands beside theirs. A line
is one run with an empty cache, the start of its processes included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoif_blocks import Recipe
from autoif_blocks.run import RunOptions

RECIPE = """
output_dir: out
models: {{teacher: {{base_url: '{url}', model: simulated-teacher, max_concurrency: {concurrency}}}}}
executor: {{tasks: {tasks}, workers: {tasks}}}
cache: {{per_task: {per_task}}}
steps:
  - {{name: given, block: read_jsonl, path: in.jsonl, fields: [number]}}
  - {{name: first, block: respond, field: a, prompt: "Tell me about {{{{ number }}}}."}}
  - {{name: second, block: respond, field: b, prompt: "Tell me more about {{{{ number }}}}: {{{{ a }}}}"}}
"""


def teacher(latency: float) -> tuple[subprocess.Popen[str], str]:
    options = ["--port", "0", "--latency", str(latency), "--latency-sigma", "0"]
    command = [sys.executable, "-m", "autoif_blocks", "teacher", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def cpu_of(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def cpu() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--tasks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--latency", type=float, default=0.25)
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight for each task")
    parser.add_argument("--per-task", action="store_true", help="a cache for each task")
    args = parser.parse_args()
    server, url = teacher(args.latency)
    print(
        f"{os.cpu_count()} cores, {args.records} records, 2 requests each, {args.concurrency} in flight for each task"
    )
    print("tasks   wall s   records/s   per task    CPU s   CPU ms/request   teacher's CPU s")
    try:
        for tasks in args.tasks:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "in.jsonl").write_text("".join(json.dumps({"number": n}) + "\n" for n in range(args.records)))
                text = RECIPE.format(
                    url=url, tasks=tasks, concurrency=args.concurrency * tasks, per_task=str(args.per_task).lower()
                )
                (folder / "recipe.yaml").write_text(text)
                recipe = Recipe.load(folder / "recipe.yaml", [f"output_dir={folder}/out"])
                began, used, served = time.perf_counter(), cpu(), cpu_of(server.pid)
                assert recipe.run(RunOptions())["records"] == args.records
                wall, used, served = time.perf_counter() - began, cpu() - used, cpu_of(server.pid) - served
                rate = args.records / wall
                each = 1000 * used / (2 * args.records)
                print(
                    f"{tasks:5} {wall:8.1f} {rate:11.0f} {rate / tasks:10.0f} {used:8.1f} {each:16.2f} {served:17.1f}"
                )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
