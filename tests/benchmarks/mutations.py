"""Whether the tests notice when the code is changed: mutants of the code, each tried against the tests that concern it.

    pip install cosmic-ray==8.7.0
    python tests/benchmarks/mutations.py [recipe] [client] [sandbox] [records] [--sample 60] [--seed 8]

cosmic-ray makes the mutants: another operator, number, comparison or truth value, a condition turned round, a loop that
does nothing, another exception, no decorator. Each becomes a file in a copy of the checkout, so that the processes that
tests start have it too. Of the places that it can change some are drawn by chance, and at each one change; a place more
than once only where there are too few. Left out are annotations, which mypy checks, and what is no Python.

`--log FILE` notes what became of each mutant. What was killed there is not tried again: a run that was broken off goes
on, and after new tests only the survivors are tried.
"""

from __future__ import annotations

import argparse
import ast
import difflib
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
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
PATIENCE = 3  # times what the tests take without a mutant
MOST_MEMORY = 12 << 30  # of one process: a mutant may lift the limits of the sandbox
NEED_ARGUMENTS = {"core/VariableReplacer", "core/VariableInserter"}
# What is mutated, and the tests that are run, the quick ones first. Not kernel.py: it is mostly tables of numbers, half
# of them those of another processor.
MODULES = {
    "recipe": (["recipe.py"], ["test_recipe.py"]),
    "client": (["client.py"], ["test_client.py", "test_endpoints.py"]),
    "sandbox": (
        [f"sandbox/{name}.py" for name in "child doctor dull jobs layers policy pool worker zygote".split()],
        ["test_sandbox.py", "test_sandbox_isolation.py", "test_sandbox_dull.py"],
    ),
    "records": (["records.py"], ["test_records.py"]),
}


class Place(NamedTuple):
    """One change that an operator can make."""

    path: str
    line: int
    column: int
    operator: str
    occurrence: int


def places(path: str) -> list[Place]:
    source = (ROOT / path).read_text(encoding="utf-8")
    annotations = [
        ((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset))
        for node in ast.walk(ast.parse(source))
        for a in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if a is not None
    ]
    nodes = list(ast_nodes(get_ast(source)))
    return [
        Place(path, *start, name, occurrence)
        for name in operator_names()
        if name not in NEED_ARGUMENTS
        for occurrence, (start, _) in enumerate(at for n in nodes for at in get_operator(name)().mutation_positions(n))
        if not any(begin <= start < end for begin, end in annotations)
    ]


def draw(found: list[Place], seed: int) -> list[Place]:
    """In an order of chance, all places once before any of them again."""
    found = random.Random(seed).sample(sorted(found), len(found))
    seen: Counter[tuple[str, int, int]] = Counter()
    turns = []
    for place in found:
        turns.append(seen[place[:3]])
        seen[place[:3]] += 1
    return [place for _, place in sorted(zip(turns, found, strict=True), key=lambda pair: pair[0])]


def mutant(place: Place) -> str | None:
    """The file with this change; None if that is no other program."""
    source = (ROOT / place.path).read_text(encoding="utf-8")
    text = mutate_code(source, get_operator(place.operator)(), place.occurrence)
    try:
        return None if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)) else text
    except SyntaxError:
        return None


def run(copy: Path, tests: list[str], patience: float | None) -> tuple[str, str]:
    """What became of the code in the copy, and the test that saw it."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/{test}" for test in tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, cwd=copy, env=environment, stdout=said, stderr=said, start_new_session=True
        ) as tested,
    ):
        try:
            code = tested.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(tested.pid, signal.SIGKILL)
            return "timed out", ""
        said.seek(0)
        by = re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", said.read().decode(errors="replace"), re.MULTILINE)
    return ("killed" if code else "survived"), (by or [""])[0]


def change(place: Place, text: str) -> str:
    before = (ROOT / place.path).read_text(encoding="utf-8").splitlines()
    lines = difflib.unified_diff(before, text.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@")


def try_module(name: str, sample: int, seed: int, copy: Path, log: Path) -> str:
    files, tests = MODULES[name]
    began = time.monotonic()
    if (told := run(copy, tests, None))[0] != "survived":
        raise SystemExit(f"the tests of {name} fail without a mutant: {told[1]}")
    patience = PATIENCE * (time.monotonic() - began)
    print(f"{name}: the tests take {patience / PATIENCE:.1f} s", flush=True)
    notes = (json.loads(line) for line in (log.read_text().splitlines() if log.exists() else ()))
    known = {tuple(note["place"]): note["outcome"] for note in notes}
    found = [place for file in files for place in places(f"autoif_blocks/{file}")]
    outcomes: Counter[str] = Counter()
    for place in draw(found, seed):
        if outcomes.total() >= sample:
            break
        if (text := mutant(place)) is None:
            continue
        outcome, by = known.get(place, "survived"), ""
        if outcome == "survived":
            mutated = copy / place.path
            mutated.write_text(text, encoding="utf-8")
            outcome, by = run(copy, tests, patience)
            shutil.copyfile(ROOT / place.path, mutated)
            with log.open("a") as lines:
                lines.write(json.dumps({"place": place, "outcome": outcome, "by": by}) + "\n")
            shown = f"\n{change(place, text)}" if outcome == "survived" else f" {by}"
            print(f"{outcome}: {place.path}:{place.line} {place.operator}{shown}", flush=True)
        outcomes[outcome] += 1
    noticed = outcomes["killed"] + outcomes["timed out"]
    cells = (name, len(found), outcomes.total(), outcomes["killed"], outcomes["timed out"], outcomes["survived"])
    return f"| {' | '.join(map(str, cells))} | {noticed / max(1, outcomes.total()):.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--sample", type=int, default=60, help="mutants of a module")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        for name in listed.stdout.decode().splitlines():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        log = options.log or Path(folder) / "log"
        rows = [try_module(name, options.sample, options.seed, copy, log) for name in options.modules or MODULES]
    print("| module | possible | tried | killed | timed out | survived | noticed |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
