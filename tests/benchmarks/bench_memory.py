"""Whether memory grows with the data: the peak of a long run beside that of a short one.

    python tests/benchmarks/bench_memory.py [records of the short run] [records of the long run]

Both are `autoif run` in a process of its own, with one step that asks a model (at zero latency, a process that always
sends the same answer) among cheap ones. The peak is the largest resident size of that process (its
children are smaller).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_client import serve

RECIPE = """
models: {{teacher: {{base_url: "{url}", model: m}}}}
output_dir: out
steps:
  - {{name: given, block: read_jsonl, path: in.jsonl, fields: [query]}}
  - {{name: answered, block: respond, prompt: "Answer: {{{{ query }}}}"}}
  - {{name: unique, block: dedup}}
  - {{name: long_enough, block: keep_length, min_chars: 10}}
  - {{name: sft_data, block: format_sft, user: "{{{{ query }}}}"}}
"""


def peak(records: int, url: str) -> float:
    """Peak resident memory of a run, in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            for number in range(records):
                file.write(json.dumps({"query": f"{number}: what is there to say about it?"}) + "\n")
        (folder / "recipe.yaml").write_text(RECIPE.format(url=url))
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "autoif_blocks", "run", "recipe.yaml", "--quiet"], cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        with (folder / "out" / "sft_data.jsonl").open("rb") as out:
            assert sum(1 for _ in out) == records
        size = usage.ru_maxrss / 1024
        wall = time.perf_counter() - began
        print(
            f"{records:8} records: peak {size:6.1f} MB, {wall:6.1f} s, {(usage.ru_utime + usage.ru_stime):6.1f} s CPU"
        )
        return size


def main(short: int, long: int) -> None:
    ready = multiprocessing.Queue()  # type: ignore[var-annotated]
    server = multiprocessing.Process(target=serve, args=(ready,), daemon=True)
    server.start()
    url = ready.get()
    first, second = peak(short, url), peak(long, url)
    server.terminate()
    print(f"ratio {second / first:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] or (5_000, 200_000)))
