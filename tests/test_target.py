"""`target: N`: rounds that grow until N records are accepted; and files that a stopped run does not make shorter."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, FakeModel, rows, tree
from hypothesis import given
from hypothesis import strategies as st

from autoif_blocks import AutoIF
from autoif_blocks.blocks.generators import SelfInstruct
from autoif_blocks.errors import BudgetSpent, RecipeError, TargetMissed
from autoif_blocks.growth import MOST_ROUNDS, Grower, Rounds
from autoif_blocks.outputs import count_rows
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.steps import BlockSpec, Step

SEEDS = [{"instruction": f"Follow rule number {n}."} for n in range(12)]
STEPS = """
  - name: more
    blocks:
      - {block: self_instruct, n: 3, demonstrations: 4, prompt: 'Like {{ demonstrations }}'}
      - {block: write_lines, path: more.txt, field: instruction}
  - {name: answered, block: respond, n: 2, prompt: 'Answer {{ instruction }}'}
  - {name: long_ones, block: keep_length, min_chars: 50}
"""
WORKERS = "executor: {tasks: 3, workers: 2}\n"
EXECUTORS = ["", pytest.param(WORKERS, marks=pytest.mark.heavy)]


def number(text: str) -> int:
    return int(hashlib.blake2b(text.encode(), digest_size=4).hexdigest(), 16)


def answer(prompt: str) -> str | list[str]:
    """New instructions, some of them known ones, or two answers of 0 to 99 characters."""
    if prompt.startswith("Like"):
        return "".join(f"- Obey the order {number(prompt + str(i)) % 500}.\n" for i in range(3))
    return ["x" * (1 + number(f"{prompt} {i}") % 99) for i in range(2)]


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.model.answer = answer
    return bench


def plain(bench: Bench, tmp_path: Path, size: int) -> dict[str, bytes]:
    """The files of a run whose recipe itself says `n: size`."""
    other = Bench(tmp_path / "plain", bench.model)
    other.folder.mkdir()
    other.run(STEPS.replace("n: 3", f"n: {size}"), SEEDS)
    return tree(other.out)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_rounds_go_on_until_the_target_is_reached(bench: Bench, tmp_path: Path, executor: str) -> None:
    found = bench.run(STEPS, SEEDS, executor + "target: 90")
    target = bench.result["target"]
    sizes = [round_["size"] for round_ in target["rounds"]]
    assert len(found) == target["accepted"] == target["rounds"][-1]["accepted"] >= 90
    assert target["rounds"][-2]["accepted"] < 90
    assert sizes[0] == 3
    assert sizes == sorted(set(sizes))
    assert (target["wanted"], target["grows"]) == (90, "n of step 'more'")
    # Nothing is paid twice, and what every round paid is in the counts.
    asked = bench.model.prompts
    assert len(asked) == len({(p, b["seed"]) for p, b in zip(asked, bench.model.bodies, strict=True)})
    assert bench.result["totals"]["requests"] == len(asked)
    assert bench.step("more")["requests"] == sizes[-1]
    assert bench.result["totals"]["hits"] == 0
    before = tree(bench.out)
    assert before == plain(bench, tmp_path, sizes[-1])
    # The same command again replays all rounds.
    paid = len(bench.model.prompts)
    bench.run(STEPS, SEEDS, executor + "target: 90")
    assert len(bench.model.prompts) == paid
    assert (tree(bench.out), bench.result["target"]) == (before, target)
    assert bench.result["totals"]["hits"] > 0


def test_a_target_that_the_recipe_reaches_by_itself_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    assert len(bench.run(STEPS, SEEDS, "target: 5")) > 5
    assert [round_["size"] for round_ in bench.result["target"]["rounds"]] == [3]
    assert tree(bench.out) == plain(bench, tmp_path, 3)


def test_a_target_may_be_raised_and_is_not_lowered_by_surprise(bench: Bench) -> None:
    first = len(bench.run(STEPS, SEEDS))
    second = len(bench.run(STEPS, SEEDS, "target: 60"))
    third = len(bench.run(STEPS, SEEDS, "target: 100"))
    assert first < 60 <= second < 100 <= third
    bench.run(STEPS, SEEDS, "target: 100", start_step="long_ones")  # does not forget it
    for less, said in (("target: 60", "target: 100 -> 60"), ("", "target: 100 -> none")):
        with pytest.raises(RecipeError, match=said):
            bench.run(STEPS, SEEDS, less)
    assert len(bench.run(STEPS, SEEDS, "target: 60", overwrite=True)) == second


def test_a_target_out_of_reach_ends_with_a_sentence(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "- Follow rule number 1.\n- Be brief, please." if "Like" in prompt else "x" * 60
    with pytest.raises(TargetMissed, match=r"26 of 1000 records, and raising n of step 'more' from 3 to 12") as caught:
        bench.run(STEPS, SEEDS, "target: 1000")
    assert caught.value.exit_code == 1
    assert f"{bench.out}/long_ones.jsonl" in str(caught.value)
    assert len(rows(bench.out / "long_ones.jsonl")) == 26
    stopped = json.loads((bench.out / "run.json").read_text())
    assert (stopped["state"], stopped["records"]) == ("stopped", 26)
    assert "has brought no further record" in stopped["failure"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_budgets_hold_over_all_rounds_and_the_next_command_goes_on(bench: Bench, tmp_path: Path, executor: str) -> None:
    commands, longest, most = 0, 0, 90 if executor else 30
    while True:
        before = len(bench.model.prompts)
        try:
            bench.run(STEPS, SEEDS, executor + f"target: 90\nbudget: {{requests: {most}}}")
            break
        except BudgetSpent:
            pass
        assert len(bench.model.prompts) - before == most
        commands += 1
        # What an earlier command or round has finished is not lost by one that came less far.
        there = [count_rows(bench.out / file) for file in ("more.jsonl", "answered.jsonl", "long_ones.jsonl")]
        assert sum(there) >= longest
        longest = sum(there)
        told = json.loads((bench.out / "run.json").read_text())
        assert [step["out"] for step in told["steps"]][1:] == there
        assert count_rows(bench.out / "more.txt") == there[0]
        came = 0
        for step in told["steps"]:
            dropped = count_rows(bench.out / "dropped" / step["file"])
            assert step["in"] + step["created"] == step["out"] + dropped + step.get("unfinished", 0)
            assert step["in"] == came
            came = step["out"]
    assert commands >= (1 if executor else 2)
    size = bench.result["target"]["rounds"][-1]["size"]
    assert len(bench.model.prompts) == size + len(rows(bench.out / "more.jsonl"))
    assert tree(bench.out) == plain(bench, tmp_path, size)


def test_token_budgets_count_all_rounds(bench: Bench) -> None:
    with pytest.raises(BudgetSpent, match=r"budget\.tokens is used up"):
        bench.run(STEPS, SEEDS, "target: 90\nbudget: {tokens: 200}")  # 5 a request
    assert len(bench.model.prompts) < 200 / 5 + 64


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "autoif_blocks", "run", str(path), *more]


@pytest.mark.heavy
def test_a_run_that_is_killed_again_and_again_reaches_its_target(bench: Bench, tmp_path: Path) -> None:
    slow = 0.01

    def slowly(prompt: str) -> Any:
        time.sleep(slow)
        return answer(prompt)

    bench.model.answer = slowly
    path = bench.recipe(STEPS, SEEDS, "target: 90\nflush_interval: 0.05")
    killed = 0
    for _ in range(4):
        with subprocess.Popen(command(path), stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
            before = len(bench.model.prompts)
            while run.poll() is None and len(bench.model.prompts) < before + 30:
                time.sleep(0.005)
            killed += run.poll() is None
            os.killpg(run.pid, signal.SIGKILL)
    assert killed >= 2
    slow = 0.0
    done = subprocess.run(command(path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((bench.out / "run.json").read_text())
    (_, second, *_), size = [r["size"] for r in result["target"]["rounds"]], result["target"]["rounds"][-1]["size"]
    assert re.search(rf"round 1: \d+ of 90 records with 3 as n of step 'more'; round 2: {second}\n", done.stderr)
    assert f"{result['records']} records in" in done.stderr
    assert "(target 90; all that were accepted are kept)" in done.stderr
    assert tree(bench.out) == plain(bench, tmp_path, size)


def test_where_a_target_cannot_be_followed(bench: Bench) -> None:
    for options, said in (
        (RunOptions(end_step="answered"), "ends before the recipe does"),
        (RunOptions(start_step="long_ones"), "begins after what could grow"),
        (RunOptions(limit=5, overwrite=True), "a trial"),
    ):
        path = bench.recipe(STEPS, SEEDS, "target: 90")
        assert "target" not in Recipe.load(path).run(options)
        more = [f"--limit={options.limit}"] if options.limit else []
        more += [
            "--start-step",
            str(options.start_step),
            *(["--end-step", options.end_step] if options.end_step else []),
        ]
        done = subprocess.run(command(path, "--target", "90", *more), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "--target 90 cannot be followed: " in done.stderr
        assert said in done.stderr


@pytest.mark.parametrize(
    ("more", "steps", "said"),
    [
        ("target: 0", STEPS, r"recipe\.yaml:2: target must be a number of records, at least 1, got 0"),
        ("target: many", STEPS, r"recipe\.yaml:2: target must be a number of records"),
        ("target: true", STEPS, r"recipe\.yaml:2: target must be a number of records"),
        ("target: 5", "", r"recipe\.yaml:2: target: no block of this recipe can bring more records: self_instruct can"),
        ("taget: 5", STEPS, "did you mean 'target'"),
        ("", "  - {name: r, block: 'mine.py:Wrong'}\n", r"Wrong\.grows names 'count', which must be an option"),
    ],
)
def test_targets_that_make_no_sense(bench: Bench, more: str, steps: str, said: str) -> None:
    (bench.folder / "mine.py").write_text("from autoif_blocks import Block\nclass Wrong(Block):\n    grows = 'count'\n")
    with pytest.raises(RecipeError, match=said):
        Recipe.load(bench.recipe(steps, SEEDS, more))


COUNTING = """
from autoif_blocks import Reader, Record
class Count(Reader):
    grows = "upto"
    writes = ("number",)
    def __init__(self, upto: int = 4) -> None:
        super().__init__()
        if upto > 30:
            raise ValueError("upto must be at most 30")
        self.upto = upto
    def read(self):
        return (Record.new("number", n, number=n) for n in range(self.upto))
"""


def test_a_block_of_ones_own_can_grow(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTING)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"output_dir: {tmp_path / 'out'}\nsteps:\n  - {{name: count, block: 'mine.py:Count'}}\n"
        "  - {name: some, block: keep_where, field: number, value: '> 1.5'}\n"
    )
    result = Recipe.load(path, ["target=20"]).run()
    assert [round_["size"] for round_ in result["target"]["rounds"]] == [4, 16, 23]
    assert result["records"] == 21
    with pytest.raises(TargetMissed, match=r"21 of 50 .* upto of step 'count' cannot be 56: upto must be at most 30"):
        Recipe.load(path, ["target=50"]).run()
    assert Recipe.load(path, ["target=null"]).target is None


def test_the_class_takes_a_target() -> None:
    recipe = AutoIF(N=7, target=50).recipe
    grower = Grower.of(recipe.steps)
    assert recipe.target == 50
    assert grower is not None
    assert grower.size == 7  # N stays what it was: the first round's completions


@given(
    target=st.integers(1, 10_000),
    first=st.integers(1, 50),
    most=st.integers(0, 20_000),
    rate=st.floats(0.01, 100),
)
def test_rounds_end_and_grow_within_bounds(target: int, first: int, most: int, rate: float) -> None:
    spec = BlockSpec(SelfInstruct, {"prompt": "p", "n": first}, "self_instruct", ())
    grower = Grower.of([Step("more", 1, (spec,))])
    assert grower is not None
    rounds = Rounds(target, grower)
    while not rounds.over:
        before = rounds.done[-1][0] if rounds.done else 0
        size = rounds.size
        assert (before < size <= 4 * before) if before else size == first
        rounds.done.append((size, min(most, int(rate * size))))
        assert len(rounds.done) <= MOST_ROUNDS
    last = rounds.done[-1][1]
    assert rounds.reached == (last >= target)
    assert rounds.reached or rounds.hopeless
    if rounds.reached and rounds.done[1:]:  # no more than a round's growth too much
        assert rounds.done[-2][1] < target


# A stopped run and what was there before

SLEEPS = """
import time
from pathlib import Path
from autoif_blocks import Scorer
class Sleeps(Scorer):
    def score(self, record):
        if (Path(__file__).parent / "slow").exists():
            time.sleep(0.1)
        return 1
"""
SLEEPY = RESPOND = (
    "  - {name: early, block: 'mine.py:Sleeps', field: early}\n"
    "  - {name: r, block: respond, n: 2, prompt: 'say {{ number }}'}\n"
    "  - {name: late, block: 'mine.py:Sleeps', field: late}\n"
)


@pytest.mark.parametrize(
    ("how", "executor"),
    [
        ("gently", ""),
        pytest.param("gently", WORKERS, marks=pytest.mark.heavy),
        pytest.param("at once", "", marks=pytest.mark.heavy),
    ],
)
def test_stopping_a_replay_leaves_complete_results_complete(bench: Bench, executor: str, how: str) -> None:
    bench.model.answer = lambda prompt: "ok"
    (bench.folder / "mine.py").write_text(SLEEPS)
    path = bench.recipe(SLEEPY, [{"number": n} for n in range(60)], executor)
    subprocess.run(command(path, "--quiet"), check=True)
    before, told = tree(bench.out), json.loads((bench.out / "run.json").read_text())
    (bench.folder / "slow").touch()
    with subprocess.Popen(command(path), stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        while run.poll() is None and not list(bench.out.glob(".work/stage-*/*/early.jsonl")):
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(run.pid, signal.SIGINT)
        if how == "at once":
            time.sleep(0.3)
            os.kill(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert run.returncode in (130, -signal.SIGINT), said
    after = tree(bench.out)
    assert {file: after[file] for file in after if not file.startswith(".work")} == before
    now = json.loads((bench.out / "run.json").read_text())
    assert (told.pop("all_commands")["commands"], now.pop("all_commands")["commands"]) == (1, 2)
    for step in (*told["steps"], *now["steps"]):
        del step["all_commands"]
    assert now == told


def test_a_stopped_run_replaces_what_it_has_more_of(bench: Bench, model: FakeModel) -> None:
    (bench.folder / "mine.py").write_text(SLEEPS)
    numbers = [{"number": n} for n in range(40)]
    bench.run(SLEEPY, numbers, limit=3)
    with pytest.raises(BudgetSpent):
        bench.run(SLEEPY, numbers, "budget: {requests: 20}")
    assert len(rows(bench.out / "late.jsonl")) == 2 * 23
    with pytest.raises(RecipeError, match="--limit: none -> 3"):
        bench.run(SLEEPY, numbers, limit=3)
    other = [{"number": n} for n in range(50)]
    with pytest.raises(BudgetSpent):  # a different run, which --overwrite says is wanted
        bench.run(SLEEPY, other, "budget: {requests: 2}", overwrite=True)
    assert len(rows(bench.out / "given.jsonl")) == 50
