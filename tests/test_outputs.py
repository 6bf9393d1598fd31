"""The files of a run: whole, sorted by id, and the same bytes whatever the parts were."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from conftest import Bench, FakeModel, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from running import small_disk

from autoif_blocks import outputs
from autoif_blocks.errors import StopRun
from autoif_blocks.outputs import count_rows, forget_shards, merge, shards_of, split
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import to_line
from autoif_blocks.run import RunOptions

ROWS = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=8)), max_size=20)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_and_number_of_parts_do_not_matter(rows: list[tuple[str, str]], random) -> None:  # type: ignore[no-untyped-def]
    lines = [to_line({"id": name, "value": value}) for name, value in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one.part").write_bytes(b"".join(lines))
        random.shuffle(lines)
        (folder / "b.part").write_bytes(b"".join(lines[::2]))
        (folder / "a.part").write_bytes(b"".join(lines[1::2]))
        assert merge([folder / "one.part"], folder / "one.jsonl") == len(rows)
        assert merge([folder / "a.part", folder / "b.part", folder / "none.part"], folder / "two.jsonl") == len(rows)
        assert (folder / "one.jsonl").read_bytes() == (folder / "two.jsonl").read_bytes()
        assert count_rows(folder / "two.jsonl") == len(rows)


@pytest.mark.parametrize("fan_in", [2, 64])
def test_what_does_not_fit_into_memory_is_sorted_in_pieces(
    fan_in: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["é", "z", '"', "a\\", "\U0001f600", "\uffff", "b\n", *map(str, range(500))]
    lines = [to_line({"id": name, "value": value}) for value in "yx" for name in names]
    whole, pieces = tmp_path / "whole.jsonl", tmp_path / "pieces.jsonl"
    (tmp_path / "a").write_bytes(b"".join(lines[::2]))
    (tmp_path / "b").write_bytes(b"".join(lines[1::2]))
    merge([tmp_path / "a", tmp_path / "b"], whole)
    monkeypatch.setattr(outputs, "_PIECE", 700)
    monkeypatch.setattr(outputs, "_FAN_IN", fan_in)
    assert merge([tmp_path / "a", tmp_path / "b"], pieces) == len(lines)
    found = [json.loads(line)["id"] for line in pieces.read_text().splitlines()]
    assert found == sorted(2 * names)
    assert pieces.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "whole.jsonl", "pieces.jsonl"}


def test_a_text_file_gets_the_bare_lines(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(to_line({"id": "b", "line": "zwei"}) + to_line({"id": "a", "line": "één"}))
    merge([tmp_path / "p"], tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "één\nzwei\n"


def test_ids_of_any_length_are_read(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(to_line({"id": "x" * 5000}) + to_line({"id": 'a"\\é'}))
    assert merge([tmp_path / "p"], tmp_path / "out.jsonl") == 2
    assert (tmp_path / "out.jsonl").read_bytes().startswith(b'{"id":"a')


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"".join(to_line({"id": str(n), "text": "x" * 1000}) for n in range(100)))
    with small_disk(tmp_path, "64k") as disk:
        (disk / "out.jsonl").write_bytes(to_line({"id": "old"}))
        with pytest.raises(StopRun, match="No space left"):
            merge([tmp_path / "p"], disk / "out.jsonl")
        assert (disk / "out.jsonl").read_bytes() == to_line({"id": "old"})


@settings(max_examples=40, deadline=None)
@given(ROWS, st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_shards_one_after_another_hold_the_same_bytes(rows: list[tuple[str, str]], sizes: list[int]) -> None:
    whole = b"".join(to_line({"id": name, "value": value}) for name, value in rows)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "sft.jsonl"
        for shards in sizes:  # each in the place of the one before
            path.write_bytes(whole)
            split(path, shards)
            assert not path.exists()
            assert [found.name for found in shards_of(path)] == [
                f"shard_{number:05d}.jsonl" for number in range(shards)
            ]
            assert b"".join(found.read_bytes() for found in shards_of(path)) == whole
            assert count_rows(path) == len(rows)
            counts = [count_rows(found) for found in shards_of(path)]
            assert max(counts) - min(counts) <= 1
        forget_shards(path)
        assert list(Path(name).iterdir()) == []


@pytest.mark.heavy
def test_a_run_leaves_its_last_step_in_shards_or_in_one_file_as_the_recipe_says(bench: Bench, model: FakeModel) -> None:
    steps, records = "  - {name: r, block: respond, prompt: 'say {{ number }}'}\n", [{"number": i} for i in range(25)]
    bench.run(steps, records)
    before = tree(bench.out)
    whole = before.pop("r.jsonl")

    def sharded(executor: str, shards: int, **options: object) -> None:
        recipe = Recipe.load(bench.recipe(steps, records, f"shards: {shards}\n{executor}"))
        assert recipe.run(RunOptions(**options))["records"] == 25  # type: ignore[arg-type]
        now = tree(bench.out)
        parts = [now.pop(f"r/shard_{number:05d}.jsonl") for number in range(shards)]
        assert b"".join(parts) == whole
        assert now == before

    sharded("", 4)
    sharded("executor: {tasks: 3, workers: 2}", 2)
    sharded("", 3, resume=False)
    model.answer = lambda prompt: 401
    with pytest.raises(StopRun):  # what came less far leaves the shards as they are
        Recipe.load(bench.recipe(steps, [*records, {"number": 99}], "shards: 3")).run(RunOptions(overwrite=True))
    assert b"".join(path.read_bytes() for path in shards_of(bench.out / "r.jsonl")) == whole
    model.answer = lambda prompt: "ok"
    bench.run(steps, records, overwrite=True)
    assert tree(bench.out) == {**before, "r.jsonl": whole}
