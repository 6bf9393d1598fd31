"""A cache for each task: read beside the whole, folded into it, and never lost on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Bench, FakeModel, tree
from test_upkeep import Heard

from autoif_blocks.cache import FILE_NAME, Cache
from autoif_blocks.cache_parts import fold, part_of
from autoif_blocks.errors import StopRun
from autoif_blocks.salvage import repair
from autoif_blocks.upkeep import shares

STEPS = "  - {name: r, block: respond, n: 2, prompt: 'say {{ number }}'}\n"
NUMBERS = [{"number": i} for i in range(24)]
PER_TASK = "executor: {tasks: 3, workers: 2}\ncache: {per_task: true}\n"


def key(number: int) -> bytes:
    return b"%016d" % number


def held(folder: Path) -> dict[str, int]:
    return {share.step: share.completions for share in shares(folder)}


def test_tasks_with_caches_of_their_own_give_the_same_bytes_and_are_replayed(bench: Bench, model: FakeModel) -> None:
    bench.run(STEPS, NUMBERS)
    before = tree(bench.out)
    bench.run(STEPS, NUMBERS, PER_TASK, resume=False)
    assert tree(bench.out) == before
    assert held(bench.out / "cache") == {"r": 48}
    assert not (bench.out / "cache" / "tasks").exists()
    asked = len(model.prompts)
    for more in (PER_TASK, "", PER_TASK.replace("3", "5")):
        bench.run(STEPS, NUMBERS, more)
        assert bench.step("r")["hits"] == 48
    assert (len(model.prompts), tree(bench.out)) == (asked, before)


@pytest.mark.heavy
def test_what_a_failed_run_has_paid_for_is_in_the_whole(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: 401 if len(model.prompts) > 12 else "ok"
    with pytest.raises(StopRun):
        bench.run(STEPS, NUMBERS, PER_TASK)
    kept = held(bench.out / "cache")["r"]
    assert 0 < kept < 48
    model.answer = lambda prompt: "ok"
    bench.run(STEPS, NUMBERS, PER_TASK)
    assert bench.step("r")["hits"] == kept


def test_parts_of_a_killed_run_are_folded_and_the_later_completion_counts(tmp_path: Path) -> None:
    repair(tmp_path)
    whole = Cache(tmp_path)
    whole.put(key(0), "whole", "a")
    whole.put(key(1), "old", "a")
    whole.close()
    for number in range(3):
        part = Cache(part_of(tmp_path, f"stage-0-{number}"), whole=tmp_path)
        part.put(key(10 + number), f"part {number}", "b")
        part.put(key(1), "new", "b")
        assert part.get_many([key(0), key(1), key(10 + number), key(99)]) == ["whole", "new", f"part {number}", None]
        part.close()
    again = Cache(part_of(tmp_path, "stage-0-1"), whole=tmp_path)  # a second attempt finds its own
    assert again.get_many([key(11), key(12), key(0)]) == ["part 1", None, "whole"]
    again.close()
    assert list(fold(tmp_path)) == []
    assert held(tmp_path) == {"a": 1, "b": 4}
    assert not (tmp_path / "tasks").exists()
    assert list(fold(tmp_path)) == []


def test_a_part_is_folded_where_there_is_no_whole_yet(tmp_path: Path) -> None:
    part = Cache(part_of(tmp_path, "first"))
    part.put(key(1), "paid for", "a")
    part.close()
    assert list(fold(tmp_path)) == []
    assert held(tmp_path) == {"a": 1}


def test_what_can_be_read_of_a_damaged_part_is_saved_and_the_loss_is_told(bench: Bench) -> None:
    folder = bench.out / "cache"
    repair(folder)
    part = Cache(part_of(folder, "stage-0-00001"), whole=folder)
    for number in range(500):
        part.put(key(number), "x" * 100, "r")
    part.close()
    file = part_of(folder, "stage-0-00001") / FILE_NAME
    os.truncate(file, file.stat().st_size // 2)
    bench.run(STEPS, NUMBERS, PER_TASK, listener=(heard := Heard()))
    assert [said for said in heard.notes if "damaged" in said and "stage-0-00001" in said]
    assert 100 < held(folder)["r"] - 48 < 500
    assert list(folder.glob("stage-0-00001-*damaged*"))
