"""What becomes of completions that are kept: shown, pruned, cleaned by `cache: {keep: …}`, deleted by --no-resume."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, FakeModel, rows
from filelock import FileLock

from autoif_blocks.cache import FILE_NAME, Cache
from autoif_blocks.errors import BudgetSpent, RecipeError, StopRun
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.upkeep import Selection, prune, selected, shares

TWO = """
  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}
  - {name: rated, block: judge_score, prompt: '7 {{ query }}'}
"""
QUERIES = [{"query": f"q{n}"} for n in range(20)]
TASKS = {"one": "", "several": "executor: {tasks: 3, workers: 2}\n"}


@pytest.fixture(autouse=True)
def answers(model: FakeModel) -> None:
    model.answer = lambda prompt: "7" if prompt.startswith("7") else "x" * 500


def autoif(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "autoif_blocks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def held(folder: Path) -> dict[str, int]:
    return {share.step: share.completions for share in shares(folder)}


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(self, *_: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def watching(self, state: object) -> Any:
        from contextlib import nullcontext

        return nullcontext()


# `autoif cache`


def test_the_command_shows_each_step_and_prunes_what_is_chosen(bench: Bench) -> None:
    path = bench.recipe(TWO, QUERIES)
    bench.run(TWO, QUERIES)
    bench.run(TWO, QUERIES)
    for where in (path, bench.out, bench.out / "cache"):
        done = autoif("cache", where)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        assert lines[0][1:3] == ["60", "completions,"]
        assert lines[1] == ["step", "kept", "size", "hits", "of", "rate", "oldest", "unused"]
        assert [lines[2][0], lines[2][1], *lines[2][4:7], lines[2][-1]] == ["answered", "40", "40", "40", "100%", "0"]
        assert [lines[3][0], lines[3][1], *lines[3][4:7]] == ["rated", "20", "40", "40", "100%"]
    for dry in (["--dry-run"], []):
        before = held(bench.out / "cache")
        done = autoif("cache", path, "--prune", "--step", "answered", *dry)
        assert done.returncode == 0, done.stderr
        assert re.match(
            rf"{'would delete' if dry else 'deleted'} 40 completions, 20\.\d kB: answered 40\n", done.stdout
        )
        assert held(bench.out / "cache") == (before if dry else {"rated": 20, "answered": 0})
    assert re.search(r"the file had \d+\.\d kB, has \d+\.\d kB", done.stdout)
    bench.model.prompts.clear()
    bench.run(TWO, QUERIES)
    assert sorted(set(bench.model.prompts)) == sorted(f"Say q{n}" for n in range(20))


def test_what_an_edited_recipe_no_longer_uses_can_be_pruned(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    bench.run(TWO.replace("Say", "Tell"), QUERIES[:15], overwrite=True)
    done = autoif("cache", bench.out, "--prune", "--unused")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("deleted 45 completions")
    assert held(bench.out / "cache") == {"answered": 30, "rated": 15}
    bench.model.prompts.clear()
    bench.run(TWO.replace("Say", "Tell"), QUERIES[:15])
    assert bench.model.prompts == []


def test_what_another_directory_s_last_run_used_is_not_unused(bench: Bench) -> None:
    shared = f"cache_dir: {bench.folder / 'shared'}\n"
    bench.run(TWO, QUERIES, shared)
    other = Recipe.load(bench.recipe(TWO, QUERIES[:5], shared), [f"output_dir={bench.folder / 'other'}"])
    other.run()
    assert selected(bench.folder / "shared", Selection(unused=True)) == {}
    bench.run(TWO, QUERIES[:10], shared, overwrite=True)
    assert selected(bench.folder / "shared", Selection(unused=True)).keys() == {"answered", "rated"}
    assert sum(count for count, _ in selected(bench.folder / "shared", Selection(unused=True)).values()) == 30


def test_a_trial_or_a_stopped_run_makes_nothing_unused(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    bench.run(TWO, QUERIES, limit=3, overwrite=True)
    budget = "budget: {requests: 3}\n"
    with pytest.raises(BudgetSpent):
        bench.run(TWO.replace("Say", "Tell"), QUERIES, budget, overwrite=True)
    unused = selected(bench.out / "cache", Selection(unused=True))
    assert unused == {} or sum(count for count, _ in unused.values()) <= 6  # the new ones of the stopped run


def test_what_was_used_lately_is_not_old(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    folder = bench.out / "cache"
    with closing(Cache(folder)) as cache:
        cache.put(b"k" * 16, '["old", "stop"]', "rated")
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as db:
        db.execute("UPDATE completions SET made = made - 10 * 86400")
    assert selected(folder, Selection(older_than=9 * 86400)) == {"rated": (1, 15)}
    assert selected(folder, Selection(older_than=11 * 86400)) == {}
    assert selected(folder, Selection(steps=("answered",), older_than=9 * 86400)) == {}
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as db:
        db.execute("UPDATE usage SET completed = completed - 10 * 86400")
    assert sum(count for count, _ in selected(folder, Selection(older_than=9 * 86400)).values()) == 61


def test_pruning_gives_the_disk_its_space_back(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        for number in range(2_000):
            cache.put(b"%016d" % number, "x" * 2_000, "a" if number % 4 else "b")
    before = (tmp_path / FILE_NAME).stat().st_size
    prune(tmp_path, Selection(("a",)))
    assert (tmp_path / FILE_NAME).stat().st_size < before / 3
    assert not (tmp_path / f"{FILE_NAME}-wal").exists()
    with closing(Cache(tmp_path)) as cache:
        assert cache.get_many([b"%016d" % 0, b"%016d" % 1]) == ["x" * 2_000, None]


def test_a_cache_in_use_is_shown_and_not_pruned(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    with FileLock(bench.out / "cache" / ".run.lock"):
        done = autoif("cache", bench.out)
        assert (done.returncode, "60 completions" in done.stdout) == (0, True)
        assert "a run is using it" in done.stderr
        done = autoif("cache", bench.out, "--prune", "--all")
        assert done.returncode == 1
        assert "another run is using" in done.stderr
    assert sum(held(bench.out / "cache").values()) == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{empty}"], "there is no cache in"),
        (["{empty}/none"], "does not exist"),
        (["{out}", "--unused"], "add it (with --dry-run"),
        (["{out}", "--prune"], "--prune needs"),
        (["{out}", "--prune", "--all", "--unused"], "--prune needs"),
        (["{out}", "--prune", "--step", "answred"], "did you mean 'answered'?"),
        (["{out}", "--prune", "--older-than", "30"], "like 30d, got '30'"),
        (["{out}", "--prune", "--unused"], "no complete run is known"),
    ],
)
def test_what_makes_no_sense_is_refused(bench: Bench, arguments: list[str], said: str) -> None:
    (bench.folder / "empty").mkdir()
    bench.run(TWO, QUERIES, limit=2)
    before = held(bench.out / "cache")
    done = autoif("cache", *(part.format(empty=bench.folder / "empty", out=bench.out) for part in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert held(bench.out / "cache") == before


def test_a_recipe_that_has_not_run_has_no_cache(bench: Bench) -> None:
    done = autoif("cache", bench.recipe(TWO, QUERIES))
    assert done.returncode == 2
    assert "run the recipe first" in done.stderr


def test_the_command_mends_what_is_damaged_and_shows_what_was_kept_aside(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    path = bench.out / "cache" / FILE_NAME
    data = bytearray(path.read_bytes())
    data[50:3_000] = os.urandom(2_950)
    path.write_bytes(data)
    done = autoif("cache", bench.out)
    assert done.returncode == 0
    assert "60 completions saved, none that is known of lost" in done.stderr
    assert re.search(r"damaged-[\d-]+: \d+\.\d kB, a damaged file that was kept", done.stdout)


# The recipe's `cache: {keep: …}`


@pytest.mark.parametrize(
    ("keep", "left", "tasks"),
    [
        ("true", {"answered": 40, "rated": 20}, "one"),
        ("false", {}, "one"),
        ("false", {}, "several"),
        ("[rated]", {"rated": 20}, "several"),
        ("[]", {}, "one"),
    ],
)
def test_completions_go_once_the_run_has_completed(bench: Bench, keep: str, left: dict[str, int], tasks: str) -> None:
    heard = Heard()
    bench.run(TWO, QUERIES, f"cache: {{keep: {keep}}}\n{TASKS[tasks]}", listener=heard)
    assert {step: count for step, count in held(bench.out / "cache").items() if count} == left
    told = [note for note in heard.notes if "cache.keep" in note]
    assert told == ([] if keep == "true" else [f"cache.keep: deleted {60 - sum(left.values())} completions of this run "
                                               f"from {bench.out / 'cache'}"])  # fmt: skip
    assert len(rows(bench.out / "rated.jsonl")) == 40


def test_they_stay_while_the_run_is_not_complete(bench: Bench, model: FakeModel) -> None:
    keep = "cache: {keep: false}\n"
    bench.run(TWO, QUERIES, keep, limit=4)
    assert sum(held(bench.out / "cache").values()) == 12
    bench.run(TWO, QUERIES, keep, end_step="answered")
    assert held(bench.out / "cache")["answered"] == 40
    with pytest.raises(BudgetSpent):
        bench.run(TWO, QUERIES, keep + "budget: {requests: 3}\n")
    assert held(bench.out / "cache")["answered"] == 40
    model.answer = lambda prompt: 401
    with pytest.raises(StopRun):
        bench.run(TWO, QUERIES, keep)
    assert held(bench.out / "cache")["answered"] == 40
    model.answer = lambda prompt: "7"
    bench.run(TWO, QUERIES, keep, start_step="rated")  # completes what an earlier command began
    assert sum(held(bench.out / "cache").values()) == 0


def test_they_stay_if_no_record_is_left(bench: Bench) -> None:
    """The user will mend the recipe, and should not pay twice for it."""
    bench.run(
        TWO + "  - {name: best, block: keep_where, field: score, value: '> 9'}\n", QUERIES, "cache: {keep: false}\n"
    )
    assert sum(held(bench.out / "cache").values()) == 60


def test_only_what_this_run_used_goes(bench: Bench) -> None:
    shared = f"cache_dir: {bench.folder / 'shared'}\n"
    folder = bench.folder / "shared"
    with closing(Cache(folder)) as cache:
        cache.put(b"k" * 16, '["of a run that was killed", "stop"]', "answered")
    bench.run(TWO, QUERIES[:5], shared)
    other = Recipe.load(
        bench.recipe(TWO, QUERIES, f"{shared}cache: {{keep: false}}\n"), [f"output_dir={bench.folder / 'other'}"]
    )
    other.run()
    # The five queries of both belong to the run that keeps them, too.
    assert held(folder) == {"answered": 11, "rated": 5}
    bench.model.prompts.clear()
    bench.run(TWO, QUERIES[:5], shared)
    assert bench.model.prompts == []


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("cache: {keep: [raetd]}", "cache: keep names a step 'raetd', which is not there; did you mean 'rated'?"),
        ("cache: {keep: some}", "keep must be"),
        ("cache: {kepp: true}", "did you mean 'keep'?"),
        ("cache: false", "cache must be a mapping"),
    ],
)
def test_a_keep_that_makes_no_sense(bench: Bench, cache: str, said: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:2: ") as caught:
        Recipe.load(bench.recipe(TWO, QUERIES, cache))
    assert said in str(caught.value)


# Beginning afresh, and a damaged cache before a run


def test_no_resume_says_what_it_deletes(bench: Bench, model: FakeModel) -> None:
    bench.run(TWO, QUERIES)
    heard = Heard()
    model.answer = lambda prompt: 401
    with pytest.raises(StopRun):
        bench.run(TWO, QUERIES, resume=False, listener=heard)
    assert (
        f"--no-resume: deleted 60 completions in {bench.out / 'cache'} and 6 step files in {bench.out}" in heard.notes
    )
    assert not (bench.out / "answered.jsonl").exists() or rows(bench.out / "answered.jsonl") == []
    assert sum(held(bench.out / "cache").values()) == 0


def test_no_resume_from_a_later_step_leaves_the_earlier_steps_files(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    heard = Heard()
    bench.run(TWO, QUERIES, resume=False, start_step="rated", listener=heard)
    assert any("deleted 60 completions" in note and "2 step files" in note for note in heard.notes)
    assert [step["name"] for step in bench.result["steps"]] == ["given", "answered", "rated"]
    assert len(rows(bench.out / "answered.jsonl")) == 40


def test_a_refused_run_deletes_nothing(bench: Bench) -> None:
    bench.run(TWO, QUERIES)
    with pytest.raises(RecipeError):
        bench.run(TWO.replace("Say", "Tell"), QUERIES, resume=False)
    assert sum(held(bench.out / "cache").values()) == 60
    assert len(rows(bench.out / "answered.jsonl")) == 40


@pytest.mark.parametrize("tasks", ["one", pytest.param("several", marks=pytest.mark.heavy)])
def test_a_run_over_a_damaged_cache_goes_on_and_says_so_once(bench: Bench, tasks: str) -> None:
    bench.run(TWO, QUERIES, TASKS[tasks])
    before = (bench.out / "rated.jsonl").read_bytes()
    path = bench.out / "cache" / FILE_NAME
    data = bytearray(path.read_bytes())
    data[:100] = os.urandom(100)
    path.write_bytes(data)
    bench.model.prompts.clear()
    heard = Heard()
    bench.run(TWO, QUERIES, TASKS[tasks], listener=heard)
    assert bench.model.prompts == []
    assert (bench.out / "rated.jsonl").read_bytes() == before
    (told,) = [note for note in heard.notes if "saved" in note]
    assert "60 completions saved, none that is known of lost" in told
    bench.run(TWO, QUERIES, TASKS[tasks], listener=(again := Heard()))
    assert not [note for note in again.notes if "saved" in note]


def test_replaying_a_large_cache_begins_at_once(tmp_path: Path) -> None:
    """A file that is as we left it is not looked through: that takes a second for 200,000 completions."""
    from autoif_blocks.salvage import repair

    with closing(Cache(tmp_path)) as cache:
        for number in range(20_000):
            cache.put(b"%016d" % number, "x" * 400)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        assert repair(tmp_path) is None
        took.append(time.perf_counter() - began)
    assert took[1] < took[0] / 3


def test_run_options_reach_the_cache(bench: Bench) -> None:
    """The library's way, without a listener."""
    Recipe.load(bench.recipe(TWO, QUERIES, "cache: {keep: [answered]}\n")).run(RunOptions())
    assert held(bench.out / "cache") == {"answered": 40, "rated": 0}
