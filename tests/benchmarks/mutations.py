"""Whether the tests notice when the code is changed: mutants of it, each tried against the tests that concern it.

    pip install cosmic-ray==8.7.0
    python tests/benchmarks/mutations.py [recipe] [client] [sandbox] [records] [--sample 50] [--seed 8] [--log FILE]

cosmic-ray makes the mutants: another operator, number, comparison or truth value, a condition turned round, a loop that
does nothing, another exception, no decorator. Each is a file in a copy of the checkout, so that processes that tests
start have it too. Of the places that can be changed some are drawn by chance, with one change each; a place comes again
only where there are too few. Left out are annotations, which mypy checks, and what is no Python.

The log notes what became of each. A run that was broken off goes on; after new tests only survivors are tried again.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import cache_from_source
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
PATIENCE = 3  # times what the tests take without a mutant
MOST_MEMORY = 12 << 30  # of one process: a mutant may lift the sandbox's limits
NEED_ARGUMENTS = {"core/VariableReplacer", "core/VariableInserter"}
SANDBOX = ("child", "doctor", "dull", "jobs", "layers", "policy", "pool", "worker", "zygote")  # kernel.py is tables
# What is mutated, and the tests that are run, the quick ones first.
MODULES = {
    "recipe": (["recipe.py"], ["recipe_values.py", "recipe.py", "target.py::test_targets_that_make_no_sense"]),
    "client": (["client.py"], ["client_details.py", "client.py", "endpoints.py"]),
    "sandbox": (
        [f"sandbox/{name}.py" for name in SANDBOX],
        [
            "sandbox_watching.py",
            "sandbox_pool.py",
            "schema.py::test_the_committed_schema_is_fresh",
            "sandbox_dull.py::test_what_could_leave_a_trace_is_not_dull",
            "sandbox_dull.py::test_what_cannot_is",
            "sandbox_isolation.py::test_the_self_test_catches_a_wall_with_a_hole",
            "sandbox_isolation.py::test_the_opt_out_is_logged",
            "sandbox_isolation.py::test_accidents_are_survived_without_the_kernels_help",
            "sandbox.py",
        ],
    ),
    "records": (["records.py"], ["records.py"]),
}
Place = tuple[str, int, int, str, int]  # file, line, column, operator, and which of those that it can change there


def places(file: str) -> list[Place]:
    source = (ROOT / file).read_text(encoding="utf-8")
    annotations = [
        ((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset))
        for node in ast.walk(ast.parse(source))
        for a in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if a is not None
    ]
    nodes = list(ast_nodes(get_ast(source)))
    return [
        (file, *start, name, number)
        for name in sorted({*operator_names()} - NEED_ARGUMENTS)
        for number, (start, _) in enumerate(at for n in nodes for at in get_operator(name)().mutation_positions(n))
        if not any(begin <= start < end for begin, end in annotations)
    ]


def drawn(found: list[Place], seed: int) -> list[Place]:
    """In an order of chance, each place once before any of them again."""
    seen: Counter[tuple[object, ...]] = Counter()
    turns = []
    for place in random.Random(seed).sample(found, len(found)):
        turns.append((seen[place[:3]], place))
        seen[place[:3]] += 1
    return [place for _, place in sorted(turns, key=lambda turn: turn[0])]


def mutant(file: str, operator: str, number: int) -> str | None:
    """The file with this change; None if it is no Python, or nothing else."""
    source = (ROOT / file).read_text(encoding="utf-8")
    text = str(mutate_code(source, get_operator(operator)(), number))
    try:
        return None if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)) else text
    except SyntaxError:
        return None


def outcome(copy: Path, tests: list[str], patience: float | None = None) -> tuple[str, str]:
    """What became of the code in the copy, and the test that noticed it."""
    command = [sys.executable, "-m", "pytest", "-xqp", "no:cacheprovider", *(f"tests/test_{name}" for name in tests)]
    # The first run leaves compiled files for those after it; of a mutant there must be none.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1" if patience else ""}
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        run = subprocess.Popen(command, cwd=copy, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            failed = run.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            return "timed out", ""
        said.seek(0)
        by = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", said.read(), re.MULTILINE)
    return ("killed" if failed else "survived"), (by[1] if by else "")


def row(name: str, sample: int, seed: int, copy: Path, log: Path) -> str:
    files, tests = MODULES[name]
    began = time.monotonic()
    if (found := outcome(copy, tests))[0] != "survived":
        raise SystemExit(f"{name}: the tests fail without a mutant, {found[1]}")
    patience = PATIENCE * (time.monotonic() - began)
    print(f"{name}: its tests take {patience / PATIENCE:.1f} s", flush=True)
    notes = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {tuple(place): became for place, became, _ in notes}
    possible = [place for file in files for place in places(f"autoif_blocks/{file}")]
    counts: Counter[str] = Counter()
    for place in drawn(possible, seed):
        file, line, _, operator, number = place
        if counts.total() == sample:
            break
        if (text := mutant(file, operator, number)) is None:
            continue
        if (became := known.get(place, "survived")) == "survived":
            (copy / file).write_text(text, encoding="utf-8")
            Path(cache_from_source(copy / file)).unlink(missing_ok=True)
            became, by = outcome(copy, tests, patience)
            shutil.copyfile(ROOT / file, copy / file)
            with log.open("a") as lines:
                lines.write(json.dumps([place, became, by]) + "\n")
            print(f"{became}: {file}:{line} {operator} {by or text.splitlines()[line - 1].strip()}", flush=True)
        counts[became] += 1
    cells = (name, len(possible), counts.total(), counts["killed"], counts["timed out"], counts["survived"])
    return f"| {' | '.join(map(str, cells))} | {1 - counts['survived'] / counts.total():.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--sample", type=int, default=50, help="mutants of a module")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        for name in files:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        log = options.log or Path(folder) / "log"
        rows = [row(name, options.sample, options.seed, copy, log) for name in options.modules or MODULES]
    print("| module | possible | tried | killed | timed out | survived | noticed |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
