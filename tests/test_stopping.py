"""Runs that end early: by Ctrl-C, by SIGTERM, by a budget, by the death of a worker. All of them continue."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Bench, FakeModel, rows, tree, wait_for_completions
from running import TASKS, command, counts_add_up, members, run_json, served, start, teacher

from autoif_blocks.errors import AutoIFError, BudgetSpent, RecipeError, StopRun, disk_trouble
from autoif_blocks.progress import ConsoleListener
from autoif_blocks.recipe import Recipe
from autoif_blocks.stopping import stop_flag
from autoif_blocks.workers import run_in_workers


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nobody stops."""
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(out, "--quiet"), check=True)
    return tree(out)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("how", "tasks"),
    [("SIGTERM", "one"), ("group SIGINT", "one"), ("SIGINT", "several"), ("group SIGTERM", "several")],
)
def test_a_signal_stops_a_run_gently(how: str, tasks: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    number = signal.Signals[how.split()[-1]]
    with teacher("--latency", "0.2") as url:
        run = start(tmp_path, "--base-url", url, *TASKS[tasks])
        wait_for_completions(tmp_path, 60)
        (os.killpg if how.startswith("group") else os.kill)(run.pid, number)
        began = time.monotonic()
        _, said = run.communicate(timeout=30)
        assert run.returncode == 130
        assert time.monotonic() - began < 8
        assert "requests in flight are waited for, at most 10 s" in said
        assert "the same command continues" in said
        assert "Traceback" not in said
        assert members(run.pid) == []
        stopped = run_json(tmp_path)
        assert stopped["state"] == "stopped"
        assert sum(step.get("unfinished", 0) for step in stopped["steps"]) > 0
        counts_add_up(tmp_path)
        assert rows(tmp_path / "augment_instructions.jsonl")
        done = subprocess.run(command(tmp_path, "--base-url", url, *TASKS[tasks]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == whole


@pytest.mark.heavy
@pytest.mark.parametrize("tasks", ["one", "several"])
def test_a_second_signal_ends_a_run_at_once(tasks: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    with teacher("--latency", "5", "--latency-sigma", "0") as url:
        run = start(tmp_path, "--base-url", url, *TASKS[tasks])
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".work/stage-*/*.status.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.5)
        os.killpg(run.pid, signal.SIGINT)
        began = time.monotonic()
        _, said = run.communicate(timeout=30)
        assert run.returncode in (130, -signal.SIGINT)  # which a shell calls 130, too: Python was on its way out
        assert time.monotonic() - began < 2.5
        assert "Traceback" not in said
        time.sleep(0.5)
        assert members(run.pid) == []
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == whole


# Budgets


RESPOND = "  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n"
NUMBERS = [{"number": i} for i in range(60)]
PRICED = ", price: {input: 1000, output: 1000}}"


@pytest.mark.parametrize("executor", ["", pytest.param("executor: {tasks: 3, workers: 3}\n", marks=pytest.mark.heavy)])
def test_a_budget_of_requests_is_never_exceeded(bench: Bench, model: FakeModel, executor: str) -> None:
    steps, budget = RESPOND, executor + "budget: {requests: 25}"
    with pytest.raises(BudgetSpent, match=r"budget\.requests is used up: 25 of 25.*the same command continues"):
        bench.run(steps, NUMBERS, budget)
    assert len(model.prompts) == 25
    stopped = run_json(bench.out)
    assert (stopped["state"], stopped["records"]) == ("stopped", 25)
    assert "requests" in stopped["failure"]
    assert len(rows(bench.out / "r.jsonl")) == 25
    counts = stopped["steps"][-1]
    assert counts["in"] == counts["out"] + counts["unfinished"] <= 60  # readers have stopped too
    with pytest.raises(BudgetSpent):  # as much again
        bench.run(steps, NUMBERS, budget)
    assert len(bench.run(steps, NUMBERS, budget)) == 60
    assert sorted(model.prompts) == sorted(f"say {i}" for i in range(60))
    assert len(bench.run(steps, NUMBERS, executor + "budget: {requests: 1}")) == 60  # replayed completions cost nothing


def test_a_run_that_goes_on_from_a_stopped_one_s_file_says_so(bench: Bench, model: FakeModel) -> None:
    class Heard(ConsoleListener):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    steps = RESPOND + "  - {name: kept, block: keep_where, field: number, value: '>= 0'}\n"
    with pytest.raises(BudgetSpent):
        bench.run(steps, NUMBERS, "budget: {requests: 25}")
    later = {"start_step": "kept", "listener": Heard(quiet=False)}
    assert len(bench.run(steps, NUMBERS, "budget: {requests: 25}", **later)) == 25
    assert any("had not got through step 'r'. To have them too, run from step 'r' on" in note for note in notes)
    bench.run(steps, NUMBERS)
    notes.clear()
    assert len(bench.run(steps, NUMBERS, **later)) == 60
    assert not any("stopped run" in note for note in notes)


@pytest.mark.parametrize(
    ("budget", "more", "said"),
    [("tokens: 100", "", "tokens"), ("cost: 0.1", PRICED, "cost"), ("minutes: 0.01", "", "minutes")],
)
def test_other_budgets_stop_a_run_too(bench: Bench, model: FakeModel, budget: str, more: str, said: str) -> None:
    def answer(prompt: str) -> str:
        time.sleep(0.03)
        return "ok"

    model.answer = answer
    path = bench.recipe(RESPOND, NUMBERS, f"budget: {{{budget}}}")
    text = path.read_text().replace("max_retry_wait: 0.05}", "max_retry_wait: 0.05, max_concurrency: 2" + (more or "}"))
    path.write_text(text)
    with pytest.raises(BudgetSpent, match=rf"budget\.{said} is used up"):
        Recipe.load(path).run()
    assert 10 < len(model.prompts) < 40
    assert len(rows(bench.out / "r.jsonl")) == len(model.prompts)


def test_a_stopping_run_wakes_requests_that_sleep(bench: Bench, model: FakeModel) -> None:
    """Those that have failed would be asked again after minutes; nobody need wait for that."""
    model.answer = lambda prompt: "ok" if prompt == "say 1" else 500
    path = bench.recipe(RESPOND, NUMBERS, "budget: {minutes: 0.02}")
    path.write_text(path.read_text().replace("max_retry_wait: 0.05", "max_retry_wait: 600, max_retries: 100"))
    began = time.monotonic()
    with pytest.raises(BudgetSpent, match="minutes"):
        Recipe.load(path).run()
    assert time.monotonic() - began < 5
    assert [row["number"] for row in rows(bench.out / "r.jsonl")] == [1]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("budget: {requests: 0}", "requests must be above 0"),
        ("budget: {request: 1}", "did you mean 'requests'"),
        ("budget: {requests: many}", "requests must be a whole number"),
        ("budget: {cost: 1}", "price"),
        ("budget: 7", "budget must be a mapping"),
    ],
)
def test_a_budget_that_makes_no_sense(bench: Bench, budget: str, said: str) -> None:
    with pytest.raises(RecipeError, match=r":\d+: ") as caught:
        Recipe.load(bench.recipe(RESPOND, NUMBERS, budget))
    assert said in str(caught.value)


# Workers that die


ENDS = """
import os, signal
from autoif_blocks import Scorer
class Ends(Scorer):
    def score(self, record):
        if record["number"] == 33:
            {end}
        return 1
"""


@pytest.mark.parametrize(
    ("end", "tasks", "said"),
    [
        pytest.param("os._exit(3)", 3, "ended with exit code 3", marks=pytest.mark.heavy),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, "was killed by SIGKILL"),
        pytest.param("raise SystemExit(9)", 3, "SystemExit", marks=pytest.mark.heavy),
        ("raise SystemExit(9)", 1, "called for the end of the program: SystemExit"),
    ],
)
def test_the_death_of_a_worker_is_told(bench: Bench, end: str, tasks: int, said: str) -> None:
    (bench.folder / "ends.py").write_text(ENDS.format(end=end))
    executor = f"executor: {{tasks: {tasks}, workers: {tasks}}}\n"
    steps = "  - {name: r, block: 'ends.py:Ends'}\n"
    began = time.monotonic()
    with pytest.raises(StopRun) as caught:
        bench.run(steps, NUMBERS, executor)
    assert said in str(caught.value)
    assert isinstance(caught.value, AutoIFError)
    assert time.monotonic() - began < 20
    assert run_json(bench.out)["state"] == "failed"
    (bench.folder / "ends.py").write_text(ENDS.format(end="pass"))
    assert len(bench.run(steps, NUMBERS, executor)) == 60


def test_a_full_disk_in_a_worker_is_one_for_the_run(tmp_path: Path) -> None:
    """Which knows the folder that the error may not name."""

    def write(rank: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        run_in_workers(write, [0], 1, stop_flag(tmp_path / "stop.json"))
    assert str(disk_trouble(caught.value, "out")).startswith("cannot write out: No space left on device; make room")


# Two runs at once


@pytest.mark.heavy
@pytest.mark.parametrize("how", [[], ["--no-resume"]])
def test_two_runs_do_not_share_a_cache(tmp_path: Path, how: list[str]) -> None:
    shared = ["--cache-dir", str(tmp_path / "cache")]
    with teacher("--latency", "5", "--latency-sigma", "0") as url:
        first = start(tmp_path / "one", "--base-url", url, *shared)
        try:
            deadline = time.monotonic() + 30
            while not (tmp_path / "cache" / "completions.sqlite").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            second = subprocess.run(
                command(tmp_path / "two", *shared, *how), capture_output=True, text=True, check=False
            )  # fmt: skip
            assert second.returncode == 1
            assert f"another run is using {tmp_path / 'cache'}" in second.stderr
            assert "--cache-dir" in second.stderr
            assert (tmp_path / "cache" / "completions.sqlite").exists()
        finally:
            first.kill()
            first.communicate()
    third = subprocess.run(command(tmp_path / "two", *shared), capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr  # the lock of a killed run is no lock


@pytest.mark.heavy
def test_one_of_two_servers_dies(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with teacher("--latency", "0.1") as good, served("--latency", "0.1") as (mortal, other):
        run = start(tmp_path, "--base-url", f"{good},{other}")
        wait_for_completions(tmp_path, 60)
        mortal.kill()
        _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert tree(tmp_path) == whole
