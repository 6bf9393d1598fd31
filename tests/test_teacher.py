"""The simulated teacher, asked over loopback; its families, checked against one another; and the sample data."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import jinja2
import pytest
import yaml

from autoif_blocks.teacher import FAMILIES, Family, TeacherConfig, running
from autoif_blocks.teacher.__main__ import main
from autoif_blocks.teacher.chance import Rates
from autoif_blocks.teacher.families import recognise, recognise_code, recognise_saying, relation
from autoif_blocks.teacher.family import fill_code, fill_wording
from autoif_blocks.teacher.hostile import HOSTILE_FUNCTIONS, HOSTILE_TEXTS
from autoif_blocks.teacher.prose import TOPICS, topic_words, write
from autoif_blocks.teacher.replies import complete, ease
from autoif_blocks.teacher.server import service_time
from autoif_blocks.teacher.tasks import task_of

ROOT = Path(__file__).parents[1]
MODEL = "simulated-teacher"
CALM = Rates(malformed=0, hostile=0)
LINE = re.compile(r"\s*(?:[-*]|\d+\.)\s+(\S.*)")

Answer = tuple[int, Any, dict[str, str]]
Post = Callable[..., Awaitable[Answer]]


def prompts() -> dict[str, jinja2.Template]:
    """The prompts of the shipped recipe by the name of their block."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)

    def find(node: Any) -> Iterator[tuple[str, jinja2.Template]]:
        if isinstance(node, dict):
            if "prompt" in node:
                yield node["block"], environment.from_string(node["prompt"])
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                yield from find(item)

    return dict(find(yaml.safe_load((ROOT / "autoif.yaml").read_text(encoding="utf-8"))["steps"]))


PROMPTS = prompts()
SEEDS = (ROOT / "sample_data/seed_instructions.txt").read_text(encoding="utf-8").splitlines()


def ask(content: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def with_server(config: TeacherConfig, talk: Callable[[Post], Awaitable[Any]], timeout: float = 10) -> Any:
    """What `talk` returns; it gets a function that posts a body and gives status, JSON and headers."""

    async def run() -> Any:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with running(config) as url, aiohttp.ClientSession(timeout=limit) as session:

            async def post(body: Any, path: str = "/chat/completions", **options: Any) -> Answer:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                async with session.post(url + path, data=data, **options) as response:
                    return response.status, await response.json(), dict(response.headers)

            post.session, post.url = session, url  # type: ignore[attr-defined]
            return await talk(post)

    return asyncio.run(run())


def contents(config: TeacherConfig, *bodies: dict[str, Any]) -> list[list[str]]:
    """The completions for each body, asked one after the other; every answer must be a 200."""

    async def talk(post: Post) -> list[list[str]]:
        found = []
        for body in bodies:
            status, data, _ = await post(body)
            assert status == 200, data
            found.append([choice["message"]["content"] for choice in data["choices"]])
        return found

    result: list[list[str]] = with_server(config, talk)
    return result


# --- the protocol ---------------------------------------------------------------------------------------------------


def test_an_answer_has_the_shape_that_clients_expect() -> None:
    status, data, headers = with_server(TeacherConfig(), lambda post: post(ask("Say something.", n=3, seed=5)))
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert data["object"] == "chat.completion"
    assert data["model"] == MODEL
    assert data["id"].startswith("chatcmpl-")
    assert abs(data["created"] - time.time()) < 60
    assert [choice["index"] for choice in data["choices"]] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in data["choices"]} == {"stop"}
    assert {choice["message"]["role"] for choice in data["choices"]} == {"assistant"}
    usage = data["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_same_request_gets_the_same_choices_and_another_seed_others() -> None:
    body = ask("What is a good first telescope?", n=4, seed=11, temperature=0)
    first, again, other = contents(TeacherConfig(), body, body, {**body, "seed": 99})
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 4


def test_choices_do_not_depend_on_the_process_or_its_hash_seed() -> None:
    program = (
        "from autoif_blocks.teacher.replies import complete, Rates;"
        "print([complete(f'Instruction: Write at least {i} words.', 'm', i, Rates()) for i in range(20)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    here = str([complete(f"Instruction: Write at least {i} words.", "m", i, Rates()) for i in range(20)])
    assert outputs[0] == outputs[1]
    assert outputs[0].decode().strip() == here


def test_a_split_request_gets_the_same_choices() -> None:
    prompt = PROMPTS["write_verifiers"].render(instruction=SEEDS[0])
    whole, first, second = contents(
        TeacherConfig(), ask(prompt, n=8, seed=3), ask(prompt, n=4, seed=3), ask(prompt, n=4, seed=7)
    )
    assert whole == first + second


def test_without_a_seed_it_is_zero() -> None:
    without, zero = contents(TeacherConfig(), ask("Hi", n=2), ask("Hi", n=2, seed=0))
    assert without == zero


def test_the_model_and_every_message_matter() -> None:
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    answers = contents(
        TeacherConfig(), ask(), ask(model="simulated-judge"), ask(messages=system), ask(messages=system[::-1])
    )
    assert len({answer[0] for answer in answers}) == 4


def test_content_may_come_in_parts() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    plain, in_parts = contents(TeacherConfig(), ask(), ask(messages=parts))
    assert plain == in_parts


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_and_says_so(name: str) -> None:
    status, data, _ = with_server(TeacherConfig(), lambda post: post(ask("Explain tides.", **{name: 5})))
    assert status == 200
    assert data["choices"][0]["finish_reason"] == "length"
    assert len(data["choices"][0]["message"]["content"]) == 20


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not json", 400, "invalid_json"),
        (b"\xff\xfe\xfa", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        ({"model": MODEL}, 400, "missing_required_parameter"),
        (ask(messages=[]), 400, "missing_required_parameter"),
        (ask(messages=["hello"]), 400, "invalid_type"),
        (ask(messages=[{"role": "user", "content": 3}]), 400, "invalid_type"),
        (ask(messages=[{"content": "hi"}]), 400, "invalid_type"),
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "missing_required_parameter"),
        (ask(n=0), 400, "invalid_value"),
        (ask(n="2"), 400, "invalid_value"),
        (ask(n=True), 400, "invalid_value"),
        (ask(n=10**6), 400, "invalid_value"),
        (ask(seed=1.5), 400, "invalid_value"),
        (ask(max_tokens=0), 400, "invalid_value"),
        (ask(stream=True), 400, "unsupported_value"),
        (ask(model="gpt-none"), 404, "model_not_found"),
    ],
)
def test_a_bad_request_gets_an_error_object(body: Any, status: int, code: str) -> None:
    got, data, _ = with_server(TeacherConfig(), lambda post: post(body))
    assert (got, data["error"]["code"]) == (status, code)
    assert data["error"]["message"]
    assert data["error"]["type"] == "invalid_request_error"


def test_keys_models_and_unknown_models() -> None:
    config = TeacherConfig(api_key="right", models=("a", "b"))
    assert "right" not in repr(config)

    async def talk(post: Any) -> None:
        good = {"Authorization": "Bearer right"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
            status, data, _ = await post(ask(model="a"), headers=headers)
            assert (status, data["error"]["code"]) == (401, "invalid_api_key")
        assert (await post(ask(model="a"), headers=good))[0] == 200
        assert (await post(ask(model=MODEL), headers=good))[0] == 404
        async with post.session.get(post.url + "/models", headers=good) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["a", "b"]
        async with post.session.get(post.url + "/models") as response:
            assert response.status == 401

    with_server(config, talk)


def test_without_named_models_every_name_is_known() -> None:
    status, _, _ = with_server(TeacherConfig(models=()), lambda post: post(ask(model="anything/at-all")))
    assert status == 200


def test_a_large_n_is_refused_where_the_server_has_a_limit() -> None:
    async def talk(post: Post) -> list[int]:
        return [(await post(ask(n=n)))[0] for n in (4, 5)]

    assert with_server(TeacherConfig(max_n=4), talk) == [200, 400]


def test_some_servers_ignore_n() -> None:
    [whole], [alone] = contents(TeacherConfig(ignore_n=True), ask(n=8), ask())
    assert whole == alone


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "status"), [({"error_500_rate": 1.0}, 500), ({"error_429_rate": 1.0, "retry_after": 0.25}, 429)]
)
def test_an_error_hits_the_first_two_tries_only(rates: dict[str, float], status: int) -> None:
    async def talk(post: Post) -> list[Answer]:
        return [await post(ask("one")) for _ in range(4)] + [await post(ask("two"))]

    answers = with_server(TeacherConfig(**rates), talk)  # type: ignore[arg-type]
    assert [answer[0] for answer in answers] == [status, status, 200, 200, status]
    assert answers[0][1]["error"]["message"]
    assert answers[0][2].get("Retry-After") == ("0.25" if status == 429 else None)


def test_a_disconnect_comes_in_the_middle_of_the_body() -> None:
    async def talk(post: Any) -> int:
        for _ in range(2):
            async with post.session.post(post.url + "/chat/completions", json=ask()) as response:
                assert response.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
        return int((await post(ask()))[0])

    assert with_server(TeacherConfig(disconnect_rate=1), talk) == 200


def test_a_hanging_request_hangs_and_does_not_keep_the_server_from_stopping() -> None:
    async def talk(post: Any) -> int:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await post(ask(), timeout=aiohttp.ClientTimeout(total=0.1))
        forgotten = asyncio.ensure_future(post(ask("never answered")))
        await asyncio.sleep(0.05)
        status = (await post(ask()))[0]
        forgotten.cancel()
        return int(status)

    start = time.monotonic()
    assert with_server(TeacherConfig(hang_rate=1), talk) == 200
    assert time.monotonic() - start < 3


def test_fewer_choices_are_the_first_ones() -> None:
    body = ask("Tell me about rain.", n=6)
    [whole] = contents(TeacherConfig(), body)
    short, short_again, full = contents(TeacherConfig(fewer_choices_rate=1), body, body, body)
    assert short == short_again == whole[:3]
    assert full == whole


def test_faults_and_latency_do_not_change_what_is_said() -> None:
    bodies = [ask(f"question {i}", n=2) for i in range(30)]
    config = TeacherConfig(latency=0.002, error_500_rate=0.2, error_429_rate=0.2, disconnect_rate=0.2, seed=4)

    async def talk(post: Post) -> tuple[list[list[str]], int]:
        faults = 0

        async def stubborn(body: dict[str, Any]) -> list[str]:
            nonlocal faults
            for _ in range(3):
                try:
                    status, data, _ = await post(body)
                except aiohttp.ClientPayloadError:
                    faults += 1
                    continue
                if status == 200:
                    return [choice["message"]["content"] for choice in data["choices"]]
                faults += 1
            raise AssertionError("three tries failed")

        return await asyncio.gather(*map(stubborn, reversed(bodies))), faults

    answers, faults = with_server(config, talk)
    assert faults > 10
    assert answers[::-1] == contents(TeacherConfig(), *bodies)


def test_a_request_takes_as_long_whenever_it_comes() -> None:
    config = TeacherConfig(latency=0.5, latency_sigma=0.8, seed=3)
    bodies = [b"%d" % number for number in range(4000)]
    times = [service_time(config, body) for body in bodies]
    assert times == [service_time(config, body) for body in bodies]
    assert 0.45 < sum(times) / len(times) < 0.55
    assert len(set(times)) == len(times)
    assert service_time(config, b"0", tries=1) != times[0], "asking again must not meet the same straggler"
    assert service_time(TeacherConfig(latency=0.5, latency_sigma=0.8, seed=4), b"0") != times[0]


def test_latency_and_slots() -> None:
    async def talk(post: Post) -> float:
        start = time.monotonic()
        await asyncio.gather(*(post(ask(f"question {i}")) for i in range(6)))
        return time.monotonic() - start

    assert with_server(TeacherConfig(latency=0.1, latency_sigma=0), talk) < 0.4
    assert with_server(TeacherConfig(latency=0.1, latency_sigma=0, max_slots=2), talk) > 0.29


@pytest.mark.parametrize(("options", "taken"), [({}, 6), ({"capacity": 4}, 4), ({"capacity": 4, "max_slots": 2}, 4)])
def test_a_server_that_is_full_says_so_and_takes_more_later(options: dict[str, Any], taken: int) -> None:
    async def talk(post: Post) -> None:
        for _ in range(2):
            answers = await asyncio.gather(*(post(ask(f"question {i}")) for i in range(6)))
            assert sorted(answer[0] for answer in answers) == [200] * taken + [429] * (6 - taken)
            assert {answer[2].get("Retry-After") for answer in answers if answer[0] == 429} <= {"1"}

    with_server(TeacherConfig(latency=0.1, latency_sigma=0, **options), talk)


@pytest.mark.parametrize(
    "options",
    [{"hang_rate": 1.5}, {"error_500_rate": -0.1}, {"max_n": 0}, {"max_slots": 0}, {"capacity": 0}, {"latency": -1.0},
     {"hang_rate": 0.6, "error_500_rate": 0.6}],
)  # fmt: skip
def test_a_senseless_configuration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|exceed"):
        TeacherConfig(**options)


# --- the process ----------------------------------------------------------------------------------------------------


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A teacher of its own process; it does not outlive a test that fails."""
    command = [sys.executable, "-m", "autoif_blocks.teacher", "--port", "0", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_process_says_where_it_listens_and_ends_with_its_stdin() -> None:
    with started("--exit-with-parent", "--models", "mine") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url)

        async def talk() -> int:
            async with aiohttp.request("POST", url + "/chat/completions", json=ask(model="mine")) as response:
                return response.status

        assert asyncio.run(talk()) == 200
        process.stdin.close()
        assert process.wait(timeout=5) == 0
        assert process.stdout.read() == b""


def test_the_process_ends_on_sigterm() -> None:
    with started() as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=5) == 0


def test_the_process_ends_with_a_parent_that_was_killed() -> None:
    # The parent hands its own stdin down, which stays open here: only the missing parent can tell.
    program = (
        "import os, subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-m', 'autoif_blocks.teacher', '--port', '0', '--exit-with-parent'],"
        " stdout=subprocess.PIPE); print(p.stdout.readline().decode(), p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.read().split()[-1])
        deadline = time.monotonic() + 5
        try:
            while is_alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not is_alive(pid)
        finally:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_wrong_options_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for option, number, said in (
        ("--hang-rate", "2", "hang_rate must be between 0 and 1"),
        ("--port", "99999", "must be from 0 to 65535, got 99999"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([option, number])
        assert said in capsys.readouterr().err


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


# --- families -------------------------------------------------------------------------------------------------------


def compiled(source: str) -> Callable[[str], Any]:
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - the teacher's own harmless functions, in a test
    function: Callable[[str], Any] = namespace["evaluate"]
    return function


def verdict(function: Callable[[str], Any], text: str) -> bool | None:
    try:
        return bool(function(text))
    except Exception:
        return None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_correct_functions_agree_with_the_builders_and_wrong_ones_do_not(family: Family) -> None:
    misses: Counter[str] = Counter()
    for seed in range(25):
        rng = Random(seed)
        params = family.draw(rng)
        topics = rng.choice((*TOPICS, topic_words("¿Qué?"), topic_words("How far is the mountain railway station?")))
        for build, truth in ((family.comply, True), (family.violate, False)):
            text = build(write(topics, rng, rng.randint(1, 5)), params, rng)
            for template in family.correct:
                assert verdict(compiled(fill_code(template, params)), text) is truth, (params, text, template)
            for wrong in family.wrong:
                misses[wrong.code] += verdict(compiled(fill_code(wrong.code, params)), text) is not truth
    assert len(family.correct) >= 2
    assert len(family.wrong) >= 2
    assert all(misses[wrong.code] for wrong in family.wrong), misses


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_words_and_code_are_recognised_with_their_parameters(family: Family) -> None:
    for seed in range(10):
        params = family.draw(Random(seed))
        for wording in family.wordings:
            sentence = fill_wording(wording, params)
            for text in (sentence, f"- {sentence}", sentence.rstrip("."), f"**{sentence}**", f"Please {sentence}"):
                reading = recognise(text)
                assert reading is not None, text
                assert (reading.family.name, reading.params) == (family.name, params)
        for template in family.correct:
            reading = recognise_code(fill_code(template, params))
            assert reading is not None, template
            assert (reading.family.name, reading.params, reading.wrong) == (family.name, params, None)
        for wrong in family.wrong:
            # Two families may share a function; then either may claim it.
            assert recognise_code(fill_code(wrong.code, params)) is not None, wrong.code
            assert recognise_saying(fill_wording(wrong.says, params)) or recognise(fill_wording(wrong.says, params))
            assert (
                relation(fill_wording(family.wordings[0], params), fill_wording(wrong.says, params)) == wrong.relation
            )


def test_families_are_many_and_their_names_hold() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names)) >= 30
    for family in FAMILIES:
        assert set(family.clashes) <= set(names), family.name
        assert all(len(wording) < 120 for wording in family.wordings)
    wordings = [wording for family in FAMILIES for wording in family.wordings]
    assert len(wordings) == len(set(wordings))


def test_numbers_may_be_words_and_quotes_may_curl() -> None:
    reading = recognise("Use the word “River” exactly three times")
    assert reading is not None
    assert (reading.family.name, reading.params.n, reading.params.word) == ("word_times", 3, "River")


def test_style_does_not_hide_a_function() -> None:
    source = (
        'def evaluate(response: str) -> bool:\n    """Count."""\n    # all words\n'
        "    return len(response.split()) >= 31\n"
    )
    reading = recognise_code(source)
    assert reading is not None
    assert (reading.family.name, reading.params.n) == ("min_words", 31)
    assert recognise_code("def evaluate(response):\n    return 'unheard of' == response\n") is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Write at least 40 words.", "Your answer must have no fewer than 40 words.", "entailment"),
        ("Write at least 40 words.", "Write at least 50 words.", "contradiction"),
        ("Write at least 40 words.", "Write more than 40 words.", "neutral"),
        ("Write at least 40 words.", "Write fewer than 40 words.", "contradiction"),
        ("Write at least 40 words.", "Use at most 20 words.", "contradiction"),
        ("Write at least 40 words.", "Do not use any commas.", "neutral"),
        ("Do not use any commas.", "Never use semicolons in verse.", None),
        ("Be inspiring.", "Do not use any commas.", None),
    ],
)
def test_relations(first: str, second: str, expected: str | None) -> None:
    assert relation(first, second) == expected


def test_hostile_functions_are_python_and_hostile_texts_survive_json() -> None:
    assert len(HOSTILE_FUNCTIONS) >= 15
    for source in HOSTILE_FUNCTIONS.values():
        tree = ast.parse(source)
        assert "evaluate" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for text in HOSTILE_TEXTS:
        assert json.loads(json.dumps(text)) == text
        assert "\0" not in text


# --- tasks ----------------------------------------------------------------------------------------------------------

FUNCTION = fill_code(FAMILIES[0].correct[0], FAMILIES[0].draw(Random(1)))
RENDERED = {
    "self_instruct": PROMPTS["self_instruct"].render(demonstrations=SEEDS[:8]),
    "verify": PROMPTS["write_verifiers"].render(instruction="Write at least 50 words."),
    "back_translate": PROMPTS["back_translate"].render(function=FUNCTION),
    "label": PROMPTS["judge_label"].render(instruction=SEEDS[0], item=SEEDS[1]),
    "respond": PROMPTS["respond"].render(
        instruction="The answer must fit into 140 characters.", query="How do I rate 5 books and score them?"
    ),
    "judge": PROMPTS["judge_score"].render(
        instruction=SEEDS[0], query="Write 3 instructions for tea", response="First.\nQuery: none"
    ),
}


@pytest.mark.parametrize("task", RENDERED)
def test_the_recipes_prompts_are_recognised(task: str) -> None:
    assert task_of(RENDERED[task]) == task


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Please come up with 5 new constraints like these:\n* Use no commas.", "self_instruct"),
        ("Return JSON with keys func and cases. func is def evaluate(response). Instruction: Use no commas.", "verify"),
        (
            "Explain it.\n```python\nimport json\n\ndef evaluate(response):\n    return '```' in response\n```",
            "back_translate",
        ),
        ("What does this do?\nimport re\ndef evaluate(response):\n    return True", "back_translate"),
        ("Premise: A.\nHypothesis: B.\nSay Entailment, Contradiction or Neutral.", "label"),
        ("**Query:** How?\n**Response:** So.\nGrade it from 1 to 5.", "judge"),
        ("Give a score between 0 and 100 to the answer.\nAnswer: So.", "judge"),
        ("How do I bake bread?\n\nDo not use any commas.", "respond"),
        ("Query: How?\nConstraint: Be brief.", "respond"),
        ("How do I bake bread?", "chat"),
        ("How can I score 3 goals in a match?", "chat"),
    ],
)
def test_edited_prompts_are_recognised_too(prompt: str, task: str) -> None:
    assert task_of(prompt) == task


def test_all_tasks_are_answered_over_http() -> None:
    answers = contents(TeacherConfig(malformed_rate=0, hostile_rate=0), *map(ask, RENDERED.values()))
    assert all(answer[0].strip() for answer in answers)


def new_instructions() -> list[list[str]]:
    found = []
    for seed in range(40):
        rng = Random(seed)
        prompt = PROMPTS["self_instruct"].render(demonstrations=rng.sample(SEEDS, 8))
        found.append(
            [m[1].strip() for m in map(LINE.fullmatch, complete(prompt, MODEL, seed, Rates()).splitlines()) if m]
        )
    return found


def test_self_instruct_brings_new_instructions_of_all_kinds() -> None:
    found = new_instructions()
    distinct = {line for lines in found for line in lines} - set(SEEDS)
    assert 120 <= len(distinct) <= 200
    assert len({tuple(lines) for lines in found}) == 40
    assert all(8 <= len(lines) <= 11 for lines in found)
    readings = [recognise(line) for line in distinct]
    assert len({reading.family.name for reading in readings if reading}) >= 38
    assert 3 <= sum(reading is None for reading in readings) <= 20
    assert any(line in SEEDS for lines in found for line in lines)


def test_self_instruct_writes_as_many_as_asked() -> None:
    prompt = RENDERED["self_instruct"].replace("Write 10 new", "Write 3 new")
    assert len(complete(prompt, MODEL, 1, CALM).strip().splitlines()) in (3, 4, 5)


def parsed(completion: str) -> dict[str, Any] | None:
    """The JSON object in a completion, as a tolerant reader finds it."""
    start_at = completion.find('{"func"') if '{"func"' in completion else completion.find('{\n  "func"')
    try:
        data, _ = json.JSONDecoder().raw_decode(completion[start_at:])
    except ValueError:
        return None
    return data if isinstance(data, dict) and isinstance(data.get("cases"), list) and data.get("func") else None


def test_verifiers_are_mostly_right_and_of_all_forms() -> None:
    right = wrong = unread = 0
    outputs: Counter[str] = Counter()
    for instruction in SEEDS:
        prompt = PROMPTS["write_verifiers"].render(instruction=instruction)
        for seed in range(12):
            data = parsed(complete(prompt, MODEL, seed, Rates(malformed=0.05, hostile=0)))
            if data is None:
                unread += 1
                continue
            assert len(data["cases"]) == 3
            outputs.update(repr(case["output"]) for case in data["cases"])
            reading = recognise_code(data["func"])
            if reading is not None:
                right += reading.wrong is None and reading.family is recognise(instruction).family  # type: ignore[union-attr]
                wrong += reading.wrong is not None
    total = 12 * len(SEEDS)
    assert 0.6 < right / total < 0.8
    assert 0.15 < wrong / total < 0.4
    assert 0.01 < unread / total < 0.1
    assert {"True", "False", "'true'", "'True'", "'false'", "'False'", "'yes'", "1"} <= set(outputs)
    assert outputs["True"] + outputs["False"] > sum(outputs.values()) / 2


def test_verifiers_for_an_uncheckable_instruction_disagree() -> None:
    prompt = PROMPTS["write_verifiers"].render(instruction="Be inspiring.")
    answers = [parsed(complete(prompt, MODEL, seed, CALM)) for seed in range(16)]
    assert len({answer["func"] for answer in answers if answer}) >= 5


def test_malformed_and_hostile_rates_are_obeyed() -> None:
    prompt = RENDERED["verify"]
    assert all(parsed(complete(prompt, MODEL, seed, CALM)) for seed in range(200))
    assert all(
        recognise_code(json_object["func"])
        for seed in range(200)
        if (json_object := parsed(complete(prompt, MODEL, seed, CALM)))
    )
    hostile = [parsed(complete(prompt, MODEL, seed, Rates(malformed=0, hostile=1))) for seed in range(200)]
    assert {answer["func"] for answer in hostile if answer} == set(HOSTILE_FUNCTIONS.values())
    broken = [parsed(complete(prompt, MODEL, seed, Rates(malformed=1, hostile=0))) for seed in range(100)]
    assert sum(answer is None for answer in broken) > 50


def test_a_lone_surrogate_travels_both_ways() -> None:
    config = TeacherConfig(hostile_rate=1, malformed_rate=0)
    answers = contents(config, ask("Hi \ud83d there", n=512))[0]
    assert any("\ud83d" in answer for answer in answers)
    assert any("\x1b" in answer for answer in answers)
    assert any("<script>" in answer for answer in answers)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_back_translations_mean_what_the_function_checks(family: Family) -> None:
    params = family.draw(Random(3))
    instruction = fill_wording(family.wordings[0], params)
    for template in family.correct:
        prompt = PROMPTS["back_translate"].render(function=fill_code(template, params))
        answers = [complete(prompt, MODEL, seed, CALM) for seed in range(20)]
        same = sum(relation(instruction, answer) == "entailment" for answer in answers)
        assert same >= 15, answers
    for wrong in family.wrong:
        prompt = PROMPTS["back_translate"].render(function=fill_code(wrong.code, params))
        answers = [complete(prompt, MODEL, seed, CALM) for seed in range(20)]
        assert sum(recognise(answer) == recognise(instruction) for answer in answers) <= 1


def test_labels_follow_the_relation_with_some_noise() -> None:
    def votes(first: str, second: str) -> Counter[str]:
        prompt = PROMPTS["judge_label"].render(instruction=first, item=second)
        answers = [complete(prompt, MODEL, seed, Rates()).lower() for seed in range(200)]
        return Counter(label for label in ("entailment", "neutral", "contradiction") for a in answers if label in a)

    for second, expected in (
        ("Make the answer at least 50 words long.", "entailment"),
        ("Use at most 20 words.", "contradiction"),
        ("Do not use any commas.", "neutral"),
    ):
        found = votes("Write at least 50 words.", second)
        assert found.most_common(1)[0][0] == expected
        assert 165 <= found[expected] <= 195
        assert len(found) == 3
    forms = {complete(RENDERED["label"], MODEL, seed, Rates()) for seed in range(300)}
    assert len(forms) > 8


def test_responses_follow_some_instructions_and_mention_the_query() -> None:
    rates = []
    for instruction in SEEDS:
        reading = recognise(instruction)
        assert reading is not None
        check = compiled(fill_code(reading.family.correct[0], reading.params))
        prompt = PROMPTS["respond"].render(instruction=instruction, query="How do vaccines train the immune system?")
        answers = [complete(prompt, MODEL, seed, CALM) for seed in range(40)]
        rate = sum(verdict(check, answer) is True for answer in answers) / 40
        assert abs(rate - ease(instruction)) < 0.3, instruction
        rates.append(rate)
    assert 0.5 < sum(rates) / len(rates) < 0.7
    prompt = PROMPTS["respond"].render(instruction="Be inspiring.", query="How do vaccines work?")
    assert sum("vaccines" in complete(prompt, MODEL, seed, CALM).lower() for seed in range(20)) >= 15


def test_scores_spread_and_about_a_third_are_high() -> None:
    answers = [
        complete(
            PROMPTS["judge_score"].render(instruction=SEEDS[0], query="Q", response=f"Text {i}."), MODEL, 0, Rates()
        )
        for i in range(1_500)
    ]
    numbers = [re.search(r"\d+", answer) for answer in answers]
    scores = [int(number[0]) for number in numbers if number]
    assert set(scores) == set(range(11))
    assert 0.3 < sum(score > 7 for score in scores) / len(answers) < 0.42
    assert 0 < sum(number is None for number in numbers) < 60
    for form in (r"Score: \d+", r"Score: \d+/10", r"\*\*Score: \d+\*\*", r"Score: \d+\.", r"\d+", r".*out of 10\."):
        assert any(re.fullmatch(form, answer) for answer in answers), form


def test_a_judge_uses_the_scale_of_the_prompt_and_nearly_the_same_score_twice() -> None:
    prompt = "Rate the response from 1 to 5.\nResponse: Fine."
    scores = [int(m[0]) for seed in range(100) if (m := re.search(r"\d+", complete(prompt, MODEL, seed, CALM)))]
    assert set(scores) <= set(range(1, 6))
    assert len(set(scores)) <= 3


# --- sample data ----------------------------------------------------------------------------------------------------


def query_of(line: dict[str, Any]) -> str:
    for key, text in (("dialogs", "content"), ("messages", "content"), ("conversations", "value")):
        if key in line:
            turns = [turn for turn in line[key] if turn.get("role", turn.get("from")) in ("user", "human")]
            return str(turns[0][text])
    return str(line.get("query") or line["text"])


def test_seed_instructions_are_distinct_and_every_family_has_one() -> None:
    assert len(SEEDS) == len(set(SEEDS)) == 48
    assert all(line == line.strip() and not line.startswith("-") for line in SEEDS)
    readings = {line: recognise(line) for line in SEEDS}
    assert not [line for line, reading in readings.items() if reading is None]
    counts = Counter(reading.family.name for reading in readings.values() if reading)
    assert set(counts) == {family.name for family in FAMILIES}
    assert max(counts.values()) <= 2


def test_queries_come_in_all_shapes_and_give_filters_something_to_do() -> None:
    lines = [json.loads(line) for line in (ROOT / "sample_data/queries.jsonl").read_text(encoding="utf-8").splitlines()]
    queries = [query_of(line) for line in lines]
    assert len(lines) == 240
    assert len(set(queries)) == 238
    names = ("query", "dialogs", "messages", "conversations", "text")
    shapes = Counter(next(name for name in names if name in line) for line in lines)
    assert shapes["query"] == 230
    assert min(shapes.values()) >= 2
    assert len(shapes) == 5
    ids = [line["id"] for line in lines if "id" in line]
    assert len(ids) == len(set(ids)) == 230
    assert sum(len(query) < 20 for query in queries) == 4
    assert sum(len(query) > 300 for query in queries) == 3
    assert sum(not query.isascii() for query in queries) >= 3
