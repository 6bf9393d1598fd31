"""How many of the responses that recipes accept are right, and how many of the right ones they accept.

    python tests/benchmarks/precision.py                              the simulated teacher at three levels of mistakes
    python tests/benchmarks/precision.py --level usual --recipes strong strong-repair     … without its step `repair`

The simulated teacher knows the truth: an instruction's family has functions that are right. All recipes see the same
candidates: the responses of a run that filters nothing, whose ids are theirs, since ids come from content. Of these,

- a candidate is *good* if its instruction is one that code can check and its response follows it: most of the family's
  right functions accept it;
- it is *accepted* if it leaves the recipe's step `query_verification`; what the judge says later has nothing to do with
  the truth here, since its scores are hashes.

precision = accepted and good / accepted; recall = accepted and good / good.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from autoif_blocks import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.teacher.families import recognise
from autoif_blocks.teacher.family import fill_code

ROOT = Path(__file__).parents[2]
VERIFIED = "query_verification"
LEVELS = {
    "usual": [],
    "careless": ["--wrong-rate=0.45", "--wrong-output-rate=0.15", "--vacuous-rate=0.1"],
    "misread": ["--misread-rate=0.25"],
}


@contextmanager
def teacher(options: list[str]) -> Iterator[str]:
    """A simulated teacher that makes such mistakes; gives its base URL."""
    command = [sys.executable, "-m", "autoif_blocks.teacher", "--port", "0", "--exit-with-parent", *options, "--models"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@lru_cache(maxsize=4096)
def checkers(instruction: str) -> list[Callable[[str], Any]]:
    """The functions that are right for an instruction; none where no code can check it."""
    reading = recognise(instruction)
    found = []
    for template in reading.family.correct if reading else ():
        namespace: dict[str, Any] = {}
        exec(fill_code(template, reading.params), namespace)  # noqa: S102 - the teacher's own, from this repository
        found.append(namespace["evaluate"])
    return found


def is_good(record: dict[str, Any]) -> bool:
    """Whether the response follows the instruction, by the truth."""
    said = [bool(check(record["response"])) for check in checkers(record["instruction"])]
    return sum(said) * 2 > len(said)


@dataclass(frozen=True)
class Found:
    """What became of the candidates in one recipe."""

    instructions: int
    accepted: int
    good: int
    all_good: int
    uncheckable: int

    @property
    def precision(self) -> float:
        return self.good / max(1, self.accepted)

    @property
    def recall(self) -> float:
        return self.good / max(1, self.all_good)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]  # not at U+2028, as text would


def run(recipe: Path, folder: Path, url: str, size: argparse.Namespace) -> dict[str, Any]:
    options = [
        f"output_dir={folder}", f"cache_dir={folder.parent / 'cache'}", f"models.teacher.base_url={url}",
        f"models.judge.base_url={url}", f"steps.augment_instructions.self_instruct.n={size.completions}",
        f"steps.sharegpt_query.join_queries.per_record={size.queries}",
        f"steps.sharegpt_query.respond.n={size.responses}", f"seed={size.seed}",
    ]  # fmt: skip
    return Recipe.load(recipe, options).run(RunOptions())


def candidates(pipelines: Path, folder: Path, url: str, size: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The responses to all instructions, by id: two steps of a recipe and none that drops anything but duplicates."""
    whole = yaml.safe_load((pipelines / "paper.yaml").read_text())
    whole["steps"] = [step for step in whole["steps"] if step["name"] in ("augment_instructions", "sharegpt_query")]
    whole["steps"][1]["blocks"][0]["keep"] = ["instruction"]
    path = pipelines / "candidates.yaml"
    path.write_text(yaml.safe_dump(whole))
    run(path, folder, url, size)
    return {row["id"]: row for row in rows(folder / "sharegpt_query.jsonl")}


def without(step: str, path: Path) -> Path:
    """The recipe less a step, and less what only that step writes for those behind it."""
    whole = yaml.safe_load(path.read_text())
    whole["steps"] = [found for found in whole["steps"] if found["name"] != step]
    for block in (block for found in whole["steps"] for block in found.get("blocks", [found])):
        if block.get("weights") == step:
            del block["weights"]
        if step in block.get("keep", ()):
            block["keep"].remove(step)
    path = path.with_stem(f"{path.stem}-{step}")
    path.write_text(yaml.safe_dump(whole))
    return path


def measure(
    name: str, pipelines: Path, folder: Path, url: str, size: argparse.Namespace, good: dict[str, bool]
) -> Found:
    recipe, _, step = name.partition("-")
    path = pipelines / f"{recipe}.yaml"
    run(without(step, path) if step else path, folder / name, url, size)
    accepted = rows(folder / name / f"{VERIFIED}.jsonl")
    strangers = {row["id"] for row in accepted} - set(good)
    assert not strangers, f"{name} accepted {len(strangers)} responses that are no candidates"
    return Found(
        instructions=len({row["instruction"] for row in accepted}),
        accepted=len(accepted),
        good=sum(good[row["id"]] for row in accepted),
        all_good=sum(good.values()),
        uncheckable=sum(not checkers(row["instruction"]) for row in accepted),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", nargs="*", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--recipes", nargs="*", default=["paper", "classic", "strong"])
    parser.add_argument("--seed", type=int, default=0, help="of the recipes")
    parser.add_argument("--completions", type=int, default=40, help="self-instruct completions in step 1")
    parser.add_argument("--queries", type=int, default=4, help="for each instruction")
    parser.add_argument("--responses", type=int, default=4, help="for each query")
    size = parser.parse_args()
    print("| mistakes | recipe | instructions | accepted | not checkable | precision | recall |")
    print("|---|---|---|---|---|---|---|")
    for level in size.level:
        with tempfile.TemporaryDirectory(prefix="autoif-precision-") as name, teacher(LEVELS[level]) as url:
            folder = Path(name)
            for part in ("pipelines", "sample_data"):
                shutil.copytree(ROOT / part, folder / part)
            found = candidates(folder / "pipelines", folder / "candidates", url, size)
            good = {record_id: is_good(row) for record_id, row in found.items()}
            print(f"| {level} | none | {len({row['instruction'] for row in found.values()})} | {len(good)} | "
                  f"{sum(not checkers(row['instruction']) for row in found.values())} | "
                  f"{sum(good.values()) / len(good):.3f} | 1.000 |", flush=True)  # fmt: skip
            for recipe in size.recipes:
                of = measure(recipe, folder / "pipelines", folder, url, size, good)
                print(f"| {level} | {recipe} | {of.instructions} | {of.accepted} | {of.uncheckable} | "
                      f"{of.precision:.3f} | {of.recall:.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
