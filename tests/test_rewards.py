"""Rewards: the satisfied constraints' share of the weight, whatever the functions do, from any thread and any loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoif_blocks.blocks.writers import FormatRlvr
from autoif_blocks.errors import DropRecord
from autoif_blocks.records import Record
from autoif_blocks.rewards import Rewards, constraints_of, reward_of
from autoif_blocks.sandbox import Outcome, SandboxConfig

HAS_A = "def evaluate(response):\n    return 'a' in response"
ALWAYS = "def evaluate(response):\n    return True"
NEVER = "def evaluate(response):\n    return False"
HOSTILE = {
    "leaves": "import os\ndef evaluate(response):\n    os._exit(0)",
    "loops": "def evaluate(response):\n    while True: pass",
    "eats": "def evaluate(response):\n    return len('x' * 10**10) > 0",
    "poisons": "import builtins\ndef evaluate(response):\n    builtins.len = lambda x: 0\n    return 1 / 0",
    "kills": "import os\ndef evaluate(response):\n    os.kill(os.getppid(), 9)",
    "broken": "def evaluate(response:",
    "nothing": "x = 1",
}


def constraint(*functions: str, **more: Any) -> dict[str, Any]:
    return {"instruction": "i", "functions": list(functions), **more}


@pytest.fixture(scope="module")
def rewards() -> Iterator[Rewards]:
    config = SandboxConfig(workers=2, call_timeout=0.2, function_timeout=0.4)
    made = Rewards(config)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("constraints", "response", "reward"),
    [
        ([constraint(HAS_A)], "a", 1.0),
        ([constraint(HAS_A)], "b", 0.0),
        ([constraint(ALWAYS), constraint(HAS_A), constraint(NEVER)], "a", 2 / 3),
        ([constraint(ALWAYS, weight=3), constraint(NEVER, weight=1)], "a", 0.75),
        ([constraint(ALWAYS, weight=0.5), constraint(NEVER, weight=2)], "a", 0.2),
        ([constraint(ALWAYS, NEVER)], "a", 0.0),  # half of the functions are no majority
        ([constraint(ALWAYS, NEVER, function_weights=[0.6, 0.4])], "a", 1.0),
        ([constraint(ALWAYS, NEVER, NEVER, function_weights=[1, 0, 0.2])], "a", 1.0),
        ([constraint(ALWAYS, ALWAYS, NEVER, function_weights=[0.1, 0.2, 0.3])], "a", 0.0),  # nor is half of the weight
        ([constraint(ALWAYS, weight=0.1), constraint(ALWAYS, weight=0.2), constraint(NEVER, weight=0.3)], "a", 0.5),
        (
            [constraint(ALWAYS, NEVER, function_weights=[1, 3], weight=2, pass_rate=">= 0.25"), constraint(NEVER)],
            "a",
            2 / 3,
        ),
        ([constraint(ALWAYS, ALWAYS, NEVER)], "a", 1.0),
        ([constraint(ALWAYS, NEVER, pass_rate=">= 0.5")], "a", 1.0),
        ([constraint(HAS_A)], "<think>a</think>b", 0.0),
        ([constraint(ALWAYS)], "<think>never closed", 0.0),
        ([constraint(ALWAYS)], " \n", 0.0),  # saying nothing follows many an instruction
    ],
)
def test_the_reward_is_the_satisfied_share_of_the_weight(
    rewards: Rewards, constraints: list[dict[str, Any]], response: str, reward: float
) -> None:
    assert rewards(constraints, response) == pytest.approx(reward)
    assert rewards(json.dumps(constraints), response) == rewards([json.dumps(constraints)], response)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_function_costs_its_own_constraint_only(rewards: Rewards, name: str) -> None:
    beside = [constraint(HAS_A, weight=2), constraint(HOSTILE[name]), constraint(ALWAYS)]
    assert rewards(beside, "a") == 0.75
    assert rewards([constraint(ALWAYS, ALWAYS, HOSTILE[name])], "a") == 1.0, "among others it costs one vote"


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ("{", "is no JSON"), ("[]", "at least one constraint"), ("7", "at least one constraint"), (None, "got 'None'"),
        ([{"instruction": "i"}], "needs 'functions'"), ([constraint()], "needs 'functions'"), (["x", "y"], "functions"),
        ([{"functions": [7]}], "needs 'functions'"),
        ([constraint(ALWAYS, function_weights=[0])], "must not all be 0"),
        ([constraint(ALWAYS, function_weights=[1, 1])], "has 2 values for 1 functions"),
        ([constraint(ALWAYS, function_weights=["1"])], "numbers from 0 to 1e9"),
        ([constraint(ALWAYS, function_weights=1)], "has no values for 1 functions"),
        ([constraint(ALWAYS, weight=0)], "above 0, got '0'"),
        ([constraint(ALWAYS, weight=float("nan"))], "above 0"), ([constraint(ALWAYS, weight=True)], "above 0"),
        ([constraint(ALWAYS, pass_rate="most")], "a threshold is a comparison"), ("[" * 100_000, "is no JSON"),
    ],
)  # fmt: skip
def test_what_is_no_ground_truth_is_told(rewards: Rewards, truth: object, told: str) -> None:
    for judge in (constraints_of, lambda truth: rewards(truth, "a")):
        with pytest.raises(ValueError, match=r".") as error:
            judge(truth)
        assert told in str(error.value)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.lists(st.sampled_from(Outcome), min_size=1, max_size=4)), min_size=1))
def test_no_constraint_is_left_out(drawn: list[tuple[float, list[Outcome]]]) -> None:
    rows = [constraint(*[ALWAYS] * len(outcomes), weight=weight) for weight, outcomes in drawn]
    runs = [[outcome] for _, outcomes in drawn for outcome in outcomes]
    found = reward_of(constraints_of(rows), runs)
    satisfied = [weight for weight, outcomes in drawn if 2 * sum(o.verdict is True for o in outcomes) > len(outcomes)]
    assert found == pytest.approx(sum(satisfied) / sum(weight for weight, _ in drawn))
    assert 0 <= found <= 1 + 1e-9


def test_any_thread_and_any_event_loop_may_ask(rewards: Rewards) -> None:
    async def many() -> list[float]:
        return await asyncio.gather(*(rewards.score([constraint(HAS_A)], "ab"[n % 2]) for n in range(40)))

    assert asyncio.run(many()) == asyncio.run(many()) == [1.0, 0.0] * 20
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(lambda n: rewards([constraint(HAS_A)], "ab"[n % 2]), range(40))] == [1.0, 0.0] * 20


PROGRAM = f"""
import os
from autoif_blocks.rewards import Rewards
rewards = Rewards()
truth = [{constraint(HAS_A)!r}]
print(rewards(truth, "a"))
rewards.close()
print(rewards(truth, "b"), flush=True)
if (child := os.fork()) == 0:
    print(rewards(truth, "a"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(*(open(f"/proc/self/task/{{task}}/children").read() for task in os.listdir("/proc/self/task")))
"""


@pytest.mark.heavy
def test_it_starts_again_after_a_close_and_in_a_fork_and_leaves_nothing_behind() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    *said, workers = done.stdout.splitlines()
    assert (said, done.stderr) == (["1.0", "0.0", "1.0"], "")
    assert workers.split()
    deadline = time.monotonic() + 10
    while left := [pid for pid in workers.split() if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_what_the_writer_writes_is_what_the_rewards_read(rewards: Rewards) -> None:
    record = Record.new("x", query="q", instruction="Use an a.", functions=[HAS_A, ALWAYS, NEVER], other=1)
    (row,) = FormatRlvr(system="be kind", max_functions=2, keep=["other"]).handle(record)
    assert row["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "q\nUse an a."}]
    assert (row["dataset"], row["constraint"], row["metadata"]) == ("autoif", "Use an a.", {"other": 1})
    assert json.loads(row["ground_truth"])[0]["functions"] == [HAS_A, ALWAYS]
    assert [rewards(row["ground_truth"], text) for text in ("a", "b")] == [1.0, 0.0]
    several = [constraint(HAS_A, weight=3), {"instruction": "j", "functions": [NEVER]}]
    (row,) = FormatRlvr(constraints="both").handle(Record.new("y", query="q", instruction="i\nj", both=several))
    assert row["constraint"] == "i\nj"
    assert rewards(row["ground_truth"], "a") == 0.75


def test_the_writer_takes_the_weights_of_functions_along(rewards: Rewards) -> None:
    functions = {"functions": [ALWAYS, NEVER, NEVER], "mutation_scores": [0.9, 0.2, 0.2]}
    record = Record.new("x", query="q", instruction="i", weight="of something else", **functions)
    for options, reward in (({}, 0.0), ({"weights": "mutation_scores"}, 1.0)):
        (row,) = FormatRlvr(**options).handle(record)
        assert rewards(row["ground_truth"], "a") == reward
    assert "mutation_scores" in FormatRlvr(weights="mutation_scores").reads
    with pytest.raises(ValueError, match="weights is for one constraint"):
        FormatRlvr(weights="mutation_scores", constraints="constraints")
    with pytest.raises(ValueError, match="has 1 values for 3 functions"):
        FormatRlvr(weights="mutation_scores").handle(record.with_(mutation_scores=[1]))


@pytest.mark.parametrize("more", [{"functions": []}, {"functions": [ALWAYS], "mutation_scores": [0]}])
def test_a_prompt_that_nothing_verifies_is_dropped(more: dict[str, Any]) -> None:
    weights = "mutation_scores" if "mutation_scores" in more else None
    with pytest.raises(DropRecord) as drop:
        FormatRlvr(weights=weights).handle(Record.new("x", query="q", instruction="i", **more))
    assert drop.value.reason == "nothing_to_verify"
    with pytest.raises(ValueError, match="a threshold is a comparison"):
        FormatRlvr(pass_rate="most")
