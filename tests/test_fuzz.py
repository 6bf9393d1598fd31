"""Whatever is read from outside may be anything: the answer is a result or a sentence, never a traceback, in bounded
time and memory. Recipes are fuzzed in test_recipe.py, completions in test_parsing.py, damaged caches in
test_salvage.py; each property here has a short form for every day and a long one among the heavy tests."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, FakeModel
from documented import autoif
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_batches import BATCH
from test_parsing import READERS
from test_security import MEASURED, Hostile, reply

from autoif_blocks.answers import Answer, read_answer, recalled, seconds_to_wait
from autoif_blocks.batch import read_replies, remembered
from autoif_blocks.blocks.queries import JoinQueries
from autoif_blocks.blocks.readers import ReadJsonl, ReadLines, ReadRun, ReadStep
from autoif_blocks.client import Client
from autoif_blocks.errors import DropRecord, ModelUnavailable, Retry, StopRun
from autoif_blocks.export.layouts import chat_of
from autoif_blocks.export.pairs import pair_of
from autoif_blocks.export.prompts import task_of
from autoif_blocks.outputs import row_id
from autoif_blocks.rewards import constraints_of, reward_of
from autoif_blocks.sandbox import jobs, worker
from autoif_blocks.sandbox.policy import Outcome

NASTY: list[Any] = [
    None, True, 0, -1, 1.5, 10**400, 1e308, -(2**63), float("inf"), float("nan"), "", "x", "\ud800", "\0",
    "\x1b[2J", "../../x", "9" * 5000, [], {}, [[]], {"": None}, ["x"] * 3, {"id": "x"}, "é" * 300, 2**53,
    "1e999", "2026-01-01T00:00:00", "0001-01-01",
]  # fmt: skip
ANY = st.recursive(
    st.sampled_from(NASTY) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
LINES = [
    b"[" * 10_000 + b"]" * 10_000, b'{"id": "x", "a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"\xff\xfe", b"\0",
    b'{"id": "x", "query": "\\ud800"}', b'{"id": "x", "query": ' + b"9" * 5000 + b"}", b'{"query": NaN}',
    b'{"query": 1e999}', b'{"id": "x\\q"}', b'{"id": "\x01\\n"}', b'{"id": "\xff\\n"}', b'{"id": "x", "id": "y"}',
    b'{"id":"x","query":"y"}',
    b'{"id": {}}', b'{"id": "x", "made_from": ["x"]}', b'{"id": "x", "made_from": [["\\', b"{", b"-", b"\xef\xbb\xbf{}",
]  # fmt: skip
ONCE = HealthCheck.function_scoped_fixture
DAILY = settings(max_examples=40, deadline=None, suppress_health_check=[ONCE, HealthCheck.too_slow])
LONG = settings(DAILY, max_examples=1000)


@st.composite
def spoiled(draw: Callable[[Any], Any], good: Any) -> Any:
    """The value with something in it replaced by something else, or gone."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        place: Any = {"": value}
        key: Any = ""
        while isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 4)):
            place = place[key]
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if key == "":
            value = copy.deepcopy(draw(ANY))  # what is sampled is shared
        elif isinstance(place, dict) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = copy.deepcopy(draw(ANY))
    return value


@st.composite
def damaged(draw: Callable[[Any], Any], good: bytes) -> bytes:
    """The bytes cut, overwritten or with something put in; or one of its JSON lines spoiled."""
    at, length = draw(st.integers(0, len(good))), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["cut", "over", "in", "line", "json", "all"]))
    if kind == "cut":
        return good[:at]
    if kind == "over":
        return good[:at] + draw(st.binary(max_size=length)) + good[at + length :]
    if kind == "in":
        return good[:at] + draw(st.binary(max_size=length)) + good[at:]
    if kind == "line":
        return good + draw(st.sampled_from(LINES)) + b"\n" + good
    if kind == "all":
        return draw(st.binary(max_size=60) | st.sampled_from(LINES))
    try:
        return json.dumps(draw(spoiled(json.loads(good)))).encode()
    except ValueError:
        lines = good.splitlines() or [b"{}"]
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(draw(spoiled(json.loads(lines[number])))).encode()
        return b"\n".join(lines) + b"\n"


# The client

CHOICE = {"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
GOOD = {
    "id": "1", "choices": [{"index": 0, **CHOICE}, {"index": 1, **CHOICE}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "timings": {"predicted_n": 2}, "error": {"message": "m"},
}  # fmt: skip


def check_answer(raw: bytes) -> None:
    try:
        answer = read_answer(raw, 2)
    except Retry:
        return
    assert isinstance(answer, Answer)
    assert answer.completions
    assert set(answer.completions) <= {0, 1}
    assert 0 <= answer.prompt_tokens * 1.0 <= 1e9 >= answer.completion_tokens / 2
    for completion in answer.completions.values():
        completion.text.encode()


BODIES = spoiled(GOOD).map(lambda value: json.dumps(value).encode()) | damaged(json.dumps(GOOD).encode())


@DAILY
@given(BODIES | st.sampled_from(LINES), st.text() | st.sampled_from(NASTY).map(str))
def test_any_answer_is_read_or_asked_again(raw: bytes, header: str) -> None:
    check_answer(raw)
    assert seconds_to_wait(header) >= 0


@pytest.mark.heavy
@LONG
@given(BODIES, st.text())
def test_many_answers_are_read_or_asked_again(raw: bytes, header: str) -> None:
    check_answer(raw)
    assert seconds_to_wait(header) >= 0


@DAILY
@given(st.text() | BODIES.map(lambda raw: raw.decode("utf-8", "replace")) | st.just('["x", "stop"]'))
@example('{"0": "", "": ""}')
def test_a_cache_from_elsewhere_holds_completions_or_nothing(value: str) -> None:
    found = recalled(value)
    assert found is None or [found.text, found.finish_reason] == json.loads(value)
    assert found is not None or value != '["x", "stop"]'


BATCH_ANSWERS: dict[str, Any] = {
    "POST /v1/files": {"id": "file-1"},
    "POST /v1/batches": {"id": "batch_1"},
    "GET /v1/batches": {"data": [{"id": "batch_0", "input_file_id": "file-0", "status": "completed"}]},
    "GET /v1/batches/batch_1": {"id": "batch_1", "status": "completed", "output_file_id": "out-1",
                                "error_file_id": "err-1", "errors": {"data": [{"code": "x", "message": "y"}]}},
    "GET /v1/files/out-1/content": [{"custom_id": "?", "response": {"status_code": 200, "body": GOOD}}],
    "GET /v1/files/err-1/content": [{"custom_id": "?", "response": None, "error": {"message": "no", "code": "x"}}],
}  # fmt: skip


@pytest.fixture(scope="module")
def vendor() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A batch server whose answers a test sets; its files know the ids of the requests that came."""
    answers: dict[str, bytes] = {}
    asked = [b"?"]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if b'"custom_id"' in handler.body:  # type: ignore[attr-defined]
            asked[0] = handler.body.partition(b'"custom_id":"')[2].partition(b'"')[0]  # type: ignore[attr-defined]
        path = handler.path.partition("?")[0]
        body = answers.get(f"{handler.command} {path}")
        reply(404 if body is None else 200, (body or b"{}").replace(b'"?"', b'"%s"' % asked[0]))(handler)

    with Hostile(answer) as server:
        yield server.url, answers


async def ask_once(url: str) -> Any:
    options = {
        "max_retries": 1,
        "batch_wait": 0.01,
        "batch_poll": 0.01,
        "max_retry_wait": 0.01,
        "connect_patience": 0.01,
    }
    client = Client(replace(BATCH, base_url=url, **options), url)
    try:
        return await asyncio.wait_for(client.complete([{"role": "user", "content": "x"}]), 1.5)
    finally:
        await client.close()


def check_batch(vendor: tuple[str, dict[str, bytes]], place: str, garbage: bytes) -> None:
    url, answers = vendor
    for path, good in BATCH_ANSWERS.items():
        lines = good if isinstance(good, list) else [good]
        answers[path] = b"\n".join(json.dumps(line).encode() for line in lines)
    answers[place] = garbage
    try:
        said = asyncio.run(ask_once(url))[0].text
    except (ModelUnavailable, DropRecord) as error:
        said = str(error)
    except TimeoutError:
        said = ""
        assert place == "GET /v1/batches/batch_1", "a batch may take a day; nothing else waits for ever"
    assert isinstance(said, str)


def first_line(good: Any) -> bytes:
    return json.dumps(good[0] if isinstance(good, list) else good).encode()


SPOILED_BATCH = st.sampled_from(sorted(BATCH_ANSWERS)).flatmap(
    lambda place: st.tuples(st.just(place), damaged(first_line(BATCH_ANSWERS[place])))
)


@settings(DAILY, max_examples=8)
@given(SPOILED_BATCH)
def test_a_batch_server_that_answers_garbage_costs_no_traceback(
    vendor: tuple[str, dict[str, bytes]], spoil: tuple[str, bytes]
) -> None:
    check_batch(vendor, *spoil)


@pytest.mark.heavy
@settings(LONG, max_examples=30)
@given(SPOILED_BATCH)
@pytest.mark.long
def test_a_batch_server_that_answers_much_garbage(
    vendor: tuple[str, dict[str, bytes]], spoil: tuple[str, bytes]
) -> None:
    check_batch(vendor, *spoil)


@pytest.mark.parametrize("line", LINES)
def test_lines_of_a_batch_and_notes_of_one(line: bytes, tmp_path: Path) -> None:
    assert all(isinstance(key, str) for key, _ in read_replies(line, "batch_1"))
    status = line if len(line) < 20 else b"1e999"
    for body in (line, b'{"custom_id": "x", "response": {"status_code": %s, "body": {}}}' % status):
        list(read_replies(body, "batch_1"))
    (tmp_path / "note.json").write_bytes(line)
    assert list(remembered(tmp_path, "m", "u")) == []


# Inputs


def check_input(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    blocks = (
        ReadLines,
        partial(ReadJsonl, fields=["query"]),
        JoinQueries,
        ReadStep,
        partial(ReadRun, fields=["query"]),
    )
    for block in (make(str(path)) for make in blocks):
        told = list(block.check())
        assert all(told)
        if isinstance(block, JoinQueries):
            continue
        with contextlib.suppress(StopRun):
            assert all(isinstance(record.id, str) for record in block.read())


@DAILY
@given(st.binary(max_size=80) | damaged(b'{"id": "x", "query": "hello"}\n{"id": "y", "query": "there"}\n'))
def test_no_line_of_an_input_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    check_input(tmp_path / "in.jsonl", content)
    row_id(content)
    with contextlib.suppress(ValueError):
        chat_of(content)


@pytest.mark.parametrize("line", LINES)
def test_no_nasty_line_of_an_input_ends_in_a_traceback(line: bytes, tmp_path: Path) -> None:
    check_input(tmp_path / "in.jsonl", line + b"\n" + line)
    with contextlib.suppress(ValueError):
        chat_of(line)


@pytest.mark.heavy
@LONG
@given(st.binary(max_size=200) | damaged(b'{"id": "x", "query": "hello"}\n{"id": "y", "query": "there"}\n'))
def test_no_file_of_inputs_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    check_input(tmp_path / "in.jsonl", content)


def measured(*arguments: str) -> tuple[subprocess.CompletedProcess[str], int, float]:
    """A command in a process of its own, with its peak of memory in MB and its seconds of processor time."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    _, peak, seconds = done.stdout.rsplit("\n", 2)[-2].split()
    return done, int(peak), float(seconds)


@pytest.mark.heavy
@pytest.mark.parametrize("line", [b'{"q": "' + b"x" * 100_000_000 + b'"}', b"[" * 100_000_000])
@pytest.mark.long
def test_a_line_of_100_megabytes_is_read_or_told(line: bytes, bench: Bench) -> None:
    recipe = bench.recipe("  - {name: r, block: respond, prompt: 'say {{ q }}'}\n", [{"q": "x"}])
    _, base, _ = measured("check", str(recipe))
    (bench.folder / "in.jsonl").write_bytes(line + b"\n")
    done, peak, seconds = measured("check", str(recipe))
    assert done.returncode == (0 if line.startswith(b"{") else 2)
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
    assert peak - base < 900
    assert seconds < 30


@pytest.mark.heavy
@pytest.mark.parametrize(
    "text",
    ["x" * 20_000_000, '{"func": "' + "y" * 20_000_000 + '"}', "[" * 2_000_000, "```\n" * 500_000],
    ids=["20 MB", "20 MB of JSON", "2 MB of brackets", "2 MB of fences"],
)
@pytest.mark.long
def test_a_completion_of_many_megabytes_is_read(text: str) -> None:
    """In a time that grows with its length alone: a microsecond a character, on a busy machine."""
    for reader in READERS.values():
        began = time.process_time()
        reader(text)
        assert time.process_time() - began < 1e-6 * len(text)


TURN = {"role": "assistant", "content": "an answer"}
ASKED = [{"role": "user", "content": "hello"}]
GROUND_TRUTH = [
    {"instruction": "i", "functions": ["def evaluate(x): return True"], "weight": 1.0, "pass_rate": "> 0.5"}
]
TRAINED: list[dict[str, Any]] = [
    {"id": "x", "messages": [*ASKED, TURN], "metadata": {"a": 1}},
    {"id": "x", "conversations": [{"from": "human", "value": "v"}, {"from": "gpt", "value": "v"}], "system": "s"},
    {"id": "x", "instruction": "i", "input": "", "output": "o"},
    {"id": "x", "prompt": ASKED, "chosen": [TURN], "rejected": [{**TURN, "content": "another"}]},
    {"id": "x", "messages": ASKED, "ground_truth": json.dumps(GROUND_TRUTH), "dataset": "d", "constraint": "c"},
]


def check_row(row: Any, truth: Any) -> None:
    line = json.dumps(row).encode()
    for read in (chat_of, pair_of, task_of):
        with contextlib.suppress(ValueError):
            assert json.dumps(read(line).metadata)
    for given_truth in (truth, json.dumps(truth)):
        with contextlib.suppress(ValueError):
            constraints = constraints_of(given_truth)
            rate = reward_of(constraints, [[Outcome.TRUE] for each in constraints for _ in each.functions])
            assert 0 <= rate <= 1


@DAILY
@given(st.sampled_from(TRAINED).flatmap(spoiled), spoiled(GROUND_TRUTH))
@example({}, [{"functions": ["f"], "weight": 10**400}])
@example({}, [{"functions": ["f"], "weight": 1e308}] * 2)
def test_a_row_for_trainers_is_one_or_a_sentence_says_what_is_wrong(row: Any, truth: Any) -> None:
    check_row(row, truth)


@pytest.mark.heavy
@LONG
@given(st.sampled_from(TRAINED).flatmap(spoiled), spoiled(GROUND_TRUTH))
def test_many_rows_for_trainers(row: Any, truth: Any) -> None:
    check_row(row, truth)


# The sandbox: all that a child can send back is what stands in its file


@DAILY
@given(st.binary(max_size=30), st.integers(0, 12))
def test_whatever_a_child_leaves_is_a_list_of_outcomes(left: bytes, count: int) -> None:
    async def read() -> list[Outcome]:
        job = worker.Job(1, "code", ["x"] * count, worker.Group(1))
        job.open()
        os.pwrite(job.fd, left, 0)
        seen = jobs.Job(1, job.fd, count)
        assert 0 <= seen.at() <= count + 1
        child = jobs.Child(1, -1, jobs.deque([seen]))
        child.passed()
        try:
            return job.outcomes()
        finally:
            job.close()

    outcomes = asyncio.run(read())
    assert len(outcomes) == count
    assert all(isinstance(outcome, Outcome) for outcome in outcomes)


# Results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, whole, with a work folder as one that was killed leaves it."""
    folder = tmp_path_factory.mktemp("results")
    model = FakeModel()
    model.answer = lambda prompt: "words" if "2" not in prompt else 400
    bench = Bench(folder, model)
    steps = (
        "  - {name: asked, block: respond, prompt: 'say {{ query }}'}\n"
        "  - {name: chat, block: format_sft, user: '{{ query }}', keep: [query]}\n"
    )
    try:
        bench.run(steps, [{"query": f"what {n}"} for n in range(3)])
    finally:
        model.close()
    run = json.loads((bench.out / "run.json").read_text())
    work = bench.out / ".work" / "stage-0"
    (work / "00000").mkdir(parents=True)
    (work.parent / "stages.json").write_text(
        json.dumps({"steps": [[s["name"], s["number"]] for s in run["steps"]], "tasks": [1]})
    )
    names = ("in", "out", "created", "dropped", "latency", "requests")
    meters = [[s["name"], 0, b["block"], {name: b[name] for name in names}] for s in run["steps"] for b in s["blocks"]]
    (work / "00000.status.json").write_text(json.dumps({"finished": False, "meters": meters}))
    (work / "00000.failure.json").write_text(json.dumps({"error": "StopRun", "message": "a sentence"}))
    return folder


FILES = ("run.json", "given.jsonl", "asked.jsonl", "chat.jsonl", "dropped/asked.jsonl", "logs/timeline.jsonl",
         ".work/stages.json", ".work/stage-0/00000.status.json", ".work/stage-0/00000.failure.json")  # fmt: skip


def commands(out: Path, folder: Path, record: str) -> Iterator[list[str]]:
    yield ["status", str(out)]
    yield ["status", str(out), "--json"]
    yield ["trace", str(out), record]
    yield ["why", str(out), "what"]
    yield ["why", str(out), record]
    yield ["report", str(out), "-o", str(folder / "report.html")]
    for layout, target in (("messages", "x.jsonl"), ("alpaca", "set"), ("dpo", "y.jsonl"), ("rlvr", "z.jsonl")):
        yield ["export", str(out), "--format", layout, "--to", str(folder / target), "--keep"]
    yield ["diff", str(folder / "recipe.yaml"), str(folder / "recipe.yaml"), "--set", "steps.asked.prompt='other'"]


def check_results(results: Path, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        shutil.copytree(results, folder, ignore=shutil.ignore_patterns("cache", "*.lock"))
        recipe = folder / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace(str(results), str(folder)))
        record = row_id((results / "out" / "asked.jsonl").read_bytes()) or ""
        (folder / "out" / name).write_bytes(content)
        for command in commands(folder / "out", folder, record):
            said = run_quietly(*command)
            assert "This is a bug" not in said, said
            assert not set(said) & set("\x1b\x07"), said


def run_quietly(*command: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = autoif(*command)
    said = err.getvalue()
    assert code in (0, 1, 2), said
    assert bool(said.strip()) == (code != 0) or command[0] == "status"
    return out.getvalue() + said


def spoiled_files(results: Path) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.sampled_from(FILES).flatmap(
        lambda name: st.tuples(st.just(name), damaged((results / "out" / name).read_bytes()))
    )


@settings(DAILY, max_examples=8)
@given(st.data())
def test_damaged_results_are_told_in_a_sentence(results: Path, data: st.DataObject) -> None:
    check_results(results, *data.draw(spoiled_files(results)))


@pytest.mark.heavy
@settings(LONG, max_examples=50)
@given(st.data())
def test_much_damaged_results_are_told_in_a_sentence(results: Path, data: st.DataObject) -> None:
    check_results(results, *data.draw(spoiled_files(results)))


@pytest.mark.heavy
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("line", range(len(LINES)))
def test_nasty_lines_in_results_are_told_in_a_sentence(results: Path, name: str, line: int) -> None:
    good = (results / "out" / name).read_bytes()
    for content in (LINES[line], LINES[line] + b"\n" + good, b""):
        check_results(results, name, content)


@pytest.mark.heavy
@settings(LONG, max_examples=30)
@given(st.data())
def test_a_run_over_damaged_results_ends_in_a_sentence_or_goes_on(results: Path, data: st.DataObject) -> None:
    """Its completions are kept: it needs no model."""
    name, content = data.draw(spoiled_files(results))
    option = data.draw(
        st.sampled_from([[], ["--overwrite"], ["--start-step", "chat"], ["--start-step", "chat", "--overwrite"]])
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        shutil.copytree(results, folder, ignore=shutil.ignore_patterns("*.lock"))
        recipe = folder / "recipe.yaml"
        recipe.write_text(
            recipe.read_text().replace(str(results), str(folder)).replace("max_retry_wait: 0.05", "connect_patience: 0")
        )
        (folder / "out" / name).write_bytes(content)
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            code = autoif("run", str(recipe), "--quiet", *option)
        said = err.getvalue()
        assert code in (0, 1, 2, 3)
        assert "This is a bug" not in said, said
        assert bool(said) == (code != 0)
