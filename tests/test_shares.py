"""Several tasks keep what a recipe promises of a model, and give the results that one task gives."""

from __future__ import annotations

import socket
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import Bench, FakeModel, rows, serving_app, tree

from autoif_blocks.context import RunContext, RunSettings
from autoif_blocks.errors import RecipeError, StopRun
from autoif_blocks.executors.stages import ReadStage, RunScope
from autoif_blocks.models import ModelConfig
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import shard_of, to_line
from autoif_blocks.teacher.config import TeacherConfig
from autoif_blocks.teacher.server import make_app

RESPOND = "  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n"
NUMBERS = [{"number": i} for i in range(60)]


@pytest.mark.parametrize(("workers", "most"), [(1, 7), (3, 6)])
def test_tasks_together_never_ask_more_at_once_than_the_recipe_says(
    bench: Bench, model: FakeModel, workers: int, most: int
) -> None:
    model.latency = 0.05
    path = bench.recipe(RESPOND, NUMBERS, f"executor: {{tasks: 8, workers: {workers}}}")
    path.write_text(path.read_text().replace("max_retry_wait: 0.05", "max_concurrency: 7"))
    Recipe.load(path).run()
    assert len(model.prompts) == 60
    assert 2 <= model.most_in_flight <= most


@pytest.mark.heavy
@pytest.mark.long
def test_tasks_find_together_what_a_server_can_take(tmp_path: Path) -> None:
    """A ceiling of 64 times as much; what became of it is read from the server's own record."""
    capacity, tasks, records = 32, 4, 5_000
    answered: list[tuple[float, float, int, str]] = []

    @web.middleware
    async def noted(request: web.Request, handler: Any) -> web.StreamResponse:
        began, body = time.monotonic(), await request.json()
        response: web.StreamResponse = await handler(request)
        answered.append((began, time.monotonic(), response.status, body["messages"][-1]["content"]))
        return response

    app = make_app(TeacherConfig(latency=0.15, latency_sigma=0.3, capacity=capacity))
    app.middlewares.append(noted)
    (tmp_path / "in.jsonl").write_text("".join(to_line({"query": f"q{i}"}).decode() for i in range(records)))
    with serving_app(app) as url:
        (tmp_path / "recipe.yaml").write_text(
            f"output_dir: {tmp_path}/out\nexecutor: {{tasks: {tasks}, workers: {tasks}}}\n"
            f"models: {{teacher: {{base_url: '{url}', model: simulated-teacher, max_concurrency: {64 * capacity}}}}}\n"
            "steps:\n  - {name: given, block: read_jsonl, path: in.jsonl, fields: [query]}\n"
            "  - {name: r, block: respond, n: 1, prompt: '{{ query }}'}\n"
        )
        result = Recipe.load(tmp_path / "recipe.yaml").run()
    assert result["records"] == records
    assert result["totals"]["retries"] == sum(status == 429 for _, _, status, _ in answered)
    task_of = {row["query"]: shard_of(row["id"], tasks) for row in rows(tmp_path / "out" / "given.jsonl")}
    # From where they have found it to where the first of them may have no more to ask.
    served = [end for _, end, status, _ in answered if status == 200]
    first, last = served[int(0.3 * records)], served[int(0.75 * records)]
    later = [answer for answer in answered if first <= answer[1] < last]
    taken = [answer for answer in later if answer[2] == 200]
    told = f"{len(later)} answers in {last - first:.1f} s, {len(taken)} of them 200"
    assert len(taken) > 0.8 * len(later), told
    busy = sum(end - max(began, first) for began, end, _, _ in taken)
    assert busy > 0.7 * capacity * (last - first), told
    shares = Counter(task_of[query] for _, _, _, query in taken)
    assert min(shares[task] for task in range(tasks)) > 0.25 * len(taken) / tasks, shares


@pytest.mark.parametrize(("tasks", "at_once"), [(1, 1), (2, 2), (3, 2), (7, 7), (16, 3), (100, 64)])
def test_shares_never_exceed_the_whole_and_none_is_empty(tasks: int, at_once: int) -> None:
    whole = ModelConfig("http://host/v1", "m", max_concurrency=64, rpm=100, tpm=None)
    share = whole.share(tasks, at_once)
    assert whole.too_little_for(tasks, at_once) == ""
    for name, among in (("max_concurrency", at_once), ("rpm", tasks)):
        assert 1 <= getattr(share, name) <= getattr(whole, name) / among < getattr(share, name) + 1
    assert share.tpm is None
    assert whole.share(1, 1) == whole


@pytest.mark.parametrize(
    ("limit", "executor", "said"),
    [
        (
            "max_concurrency: 2",
            "tasks: 4, workers: 3",
            "max_concurrency is 2, and 3 tasks at once need at least 1 each",
        ),
        ("rpm: 1", "tasks: 2, workers: 1", "rpm is 1, and 2 tasks need at least 1 each"),
        ("max_concurrency: 2", "tasks: 9, workers: 2", ""),
        ("max_concurrency: 2, mode: batch", "tasks: 9, workers: 9", ""),  # each task has batches of its own
        ("max_concurrency: 2", "tasks: 2, workers: 9", ""),
    ],
)
def test_a_limit_that_leaves_nothing_for_a_task_is_told_by_its_line(
    bench: Bench, limit: str, executor: str, said: str
) -> None:
    path = bench.recipe(RESPOND, NUMBERS[:1], f"executor: {{{executor}}}")
    path.write_text(path.read_text().replace("max_retry_wait: 0.05", limit))
    if not said:
        Recipe.load(path)
        return
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert f":2: executor: model 'teacher': {said}: lower tasks or workers, or raise it" in str(caught.value)


DEDUP = "  - {name: d, block: dedup, on: [half]}\n  - {name: r, block: respond, n: 2, prompt: 'say {{ half }}'}\n"


def halves(count: int) -> list[dict[str, int]]:
    return [{"number": i, "half": i // 2} for i in range(count)]


@pytest.mark.parametrize("tasks", [2, pytest.param(1000, marks=[pytest.mark.heavy, pytest.mark.long])])
def test_more_tasks_than_records_give_the_same_bytes(bench: Bench, model: FakeModel, tasks: int) -> None:
    few = halves(50 if tasks > 2 else 1)
    bench.run(DEDUP, few)
    before = tree(bench.out)
    bench.run(DEDUP, few, f"executor: {{tasks: {tasks}, workers: 2}}", resume=False)
    assert tree(bench.out) == before


def test_a_task_that_lacks_a_key_says_which_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_OF_MINE", raising=False)
    scope = RunScope(RunContext(RunSettings(str(tmp_path))), ["PATH", "KEY_OF_MINE"])
    with pytest.raises(StopRun, match=rf"KEY_OF_MINE.* is not set on {socket.gethostname()}, where task 7 runs"):
        list(scope.run(None, 7, 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("executor", "said"),
    [
        pytest.param(
            "{type: ray}", r"pip install 'autoif-blocks\[ray\]'",
            marks=pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed"),
        ),
        ("{type: slurm, partition: p, time: '10'}", "type slurm needs the command sbatch"),
    ],
)  # fmt: skip
def test_a_cluster_whose_software_is_missing_is_told_before_anything_is_done(
    bench: Bench, executor: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RecipeError, match=said):
        bench.run(RESPOND, NUMBERS[:1], f"executor: {executor}")
    assert not (bench.out / "run.json").exists()


def test_every_record_between_two_stages_goes_to_one_task_whatever_its_id(tmp_path: Path) -> None:
    names = ["plain", "ü", 'a "quote"', "back\\slash", "line\nbreak", *map(str, range(40))]
    path = tmp_path / "after-0.jsonl"
    path.write_bytes(b"".join(to_line({"id": name, "number": n}) for n, name in enumerate(names)))
    context = RunContext(RunSettings(str(tmp_path / "stage-1")))
    context.open(0)
    try:
        stage = ReadStage(str(path), 0, 1)
        stage.bind("s", 0, context)
        shards = [[document.id for document in stage.run(None, rank, 3)] for rank in range(3)]
    finally:
        context.close(True)
    assert sorted(name for shard in shards for name in shard) == sorted(names)
    assert all(shards)
