"""Runs into S3, and from it: over a real server, real processes, and a line that is cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server
from conftest import AUTOIF, SMALL, Bench, FakeModel, tree
from s3_server import KEYS, Line

pytestmark = [pytest.mark.heavy, pytest.mark.s3]

STEPS = "  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}\n"
QUERIES = [{"query": f"q{n}"} for n in range(60)]
OFTEN = ["--set", "flush_interval=0.05", "--set", "send_interval=0.1"]


class S3:
    """A bucket, and machines that know it."""

    def __init__(self, line: Line, folder: Path, bucket: str) -> None:
        self.line = line
        self.folder = folder
        self.bucket = bucket
        self.url = f"s3://{bucket}/run"
        self.client = s3_server.client(line.url)
        self.client.create_bucket(Bucket=bucket)

    def environment(self, machine: str) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {
            **others, **KEYS, "AWS_ENDPOINT_URL": self.line.url, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(self.folder), "XDG_CACHE_HOME": "",
            "AUTOIF_WORK_DIR": str(self.folder / machine),
        }  # fmt: skip

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "autoif_blocks", *map(str, arguments)]

    def autoif(self, machine: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), env={**self.environment(machine), **environment}, cwd=self.folder,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done

    def run(self, machine: str, recipe: Path, *more: object) -> subprocess.CompletedProcess[str]:
        return self.autoif(machine, "run", recipe, "--output-dir", self.url, *more)

    def start(self, machine: str, recipe: Path, *more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("run", recipe, "--output-dir", self.url, *more), env=self.environment(machine),
            cwd=self.folder, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def objects(self, start: str = "run/") -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
        names = [row["Key"] for page in pages for row in page.get("Contents", [])]
        found = {name: self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read() for name in names}
        return {name.removeprefix(start): content for name, content in found.items()}

    def results(self) -> dict[str, bytes]:
        skipped = ("cache", "logs", "run.json", ".autoif.json", ".status.json")
        return {name: content for name, content in self.objects().items() if name.split("/")[0] not in skipped}

    def run_json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects()["run.json"])
        return found

    def wait_for(self, name: str, count: int = 1) -> None:
        until = time.monotonic() + 60
        while len([key for key in self.objects() if name in key]) < count:
            assert time.monotonic() < until, self.objects().keys()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    if said := s3_server.missing():
        pytest.fail(said) if os.environ.get("AUTOIF_S3") == "required" else pytest.skip(said)
    with s3_server.s3(tmp_path_factory.mktemp("moto")) as line:
        yield line


@pytest.fixture
def s3(line: Line, tmp_path: Path) -> Iterator[S3]:
    line.mend()
    yield S3(line, tmp_path, f"bucket-{os.urandom(4).hex()}")
    line.mend()


@pytest.fixture
def local(bench: Bench, model: FakeModel) -> dict[str, bytes]:
    """What a run of the small recipe leaves in a local folder."""
    bench.run(STEPS, QUERIES)
    found = tree(bench.out)
    model.bodies.clear()
    return found


def test_the_ten_steps_into_s3_are_those_of_a_local_run(s3: S3, tmp_path: Path) -> None:
    assert s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", tmp_path / "out").returncode == 0
    done = s3.run("a", AUTOIF, *SMALL, "--set", "executor.tasks=3", "--set", "executor.workers=2")
    assert done.returncode == 0, done.stderr
    assert s3.results() == tree(tmp_path / "out")
    assert f"in {s3.url}/sft_data.jsonl" in done.stdout + done.stderr
    assert str(tmp_path / "a") not in s3.objects()["run.json"].decode()
    for content in s3.objects().values():
        assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in content
    again = s3.run("b", AUTOIF, *SMALL)
    assert again.returncode == 0, again.stderr
    assert s3.run_json()["totals"]["requests"] == 0
    assert s3.results() == tree(tmp_path / "out")
    shown = s3.autoif("c", "cache", s3.url)
    assert "verification_funcs_cases" in shown.stdout, shown.stderr


def asked_once(model: FakeModel) -> bool:
    bodies = [json.dumps(body, sort_keys=True) for body in model.bodies]
    return len(bodies) == len(set(bodies)) == len(QUERIES)


def test_a_stopped_run_is_continued_by_another_machine(
    s3: S3, bench: Bench, model: FakeModel, local: dict[str, bytes]
) -> None:
    model.latency = 0.3
    recipe = bench.recipe(STEPS, QUERIES)
    few = ["--batch-size", 4]
    run = s3.start("a", recipe, *few)
    while len(model.bodies) < 12:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert s3.run_json()["state"] == "stopped"
    assert 12 <= len(model.bodies) < len(QUERIES)
    done = s3.run("b", recipe, *few)
    assert done.returncode == 0, done.stderr
    assert s3.results() == local
    assert asked_once(model)


@pytest.mark.parametrize("machine", ["the same", "another"])
def test_a_killed_run_continues(s3: S3, bench: Bench, model: FakeModel, local: dict[str, bytes], machine: str) -> None:
    model.latency = 0.3
    recipe = bench.recipe(STEPS, QUERIES)
    run = s3.start("the same", recipe, "--batch-size", 4, *OFTEN)
    s3.wait_for("cache/tasks/", 2)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    before = len(model.bodies)
    assert "run.json" not in s3.objects()
    done = s3.run(machine, recipe)
    assert done.returncode == 0, done.stderr
    assert s3.results() == local
    assert before < len(QUERIES)
    assert len(model.bodies) < len(QUERIES) + before  # what was sent is not asked again
    assert s3.run_json()["totals"]["hits"] > 0
    assert [name for name in s3.objects() if name.startswith("cache/")] == ["cache/completions.sqlite"]


def test_two_machines_do_not_run_at_once(s3: S3, bench: Bench, model: FakeModel) -> None:
    model.latency = 2
    recipe = bench.recipe(STEPS, QUERIES)
    run = s3.start("a", recipe, "--batch-size", 4)
    while not model.bodies:
        time.sleep(0.02)
    second = s3.run("b", recipe)
    assert second.returncode == 1
    assert f"is using {s3.url}, it was there" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)


def test_a_line_that_is_cut_while_files_are_sent_loses_nothing(
    s3: S3, bench: Bench, model: FakeModel, local: dict[str, bytes]
) -> None:
    recipe = bench.recipe(STEPS, QUERIES)
    s3.line.cut_after_puts = 6  # three for the claim, three files
    began = time.monotonic()
    cut = s3.run("a", recipe)
    took = time.monotonic() - began
    s3.line.mend()
    assert cut.returncode == 1
    last = cut.stderr.splitlines()[-1]
    assert last.startswith(f"error: the run is complete, but cannot reach {s3.url}: ")
    assert last.endswith("the same command sends it")
    assert took < 90  # many attempts, but not for ever
    assert 1 <= len(s3.results()) < len(local)
    assert "run.json" not in s3.objects()
    asked = len(model.bodies)
    assert s3.run("a", recipe).returncode == 0
    assert s3.results() == local
    assert len(model.bodies) == asked


def test_a_line_that_is_down_for_a_while_does_not_stop_a_run(
    s3: S3, bench: Bench, model: FakeModel, local: dict[str, bytes]
) -> None:
    model.latency = 0.5
    recipe = bench.recipe(STEPS, QUERIES)
    run = s3.start("a", recipe, "--batch-size", 2, *OFTEN)
    s3.wait_for("cache/tasks/")
    s3.line.cut = True
    time.sleep(5)
    s3.line.cut = False
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert s3.results() == local


def test_what_is_wrong_with_a_bucket_is_a_sentence(s3: S3, bench: Bench, model: FakeModel) -> None:
    recipe = bench.recipe(STEPS, QUERIES)

    def said(url: str, **environment: str) -> str:
        done = s3.autoif("a", "run", recipe, "--output-dir", url, **environment)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    missing = "s3://no-such-bucket/run"
    assert f"there is no {missing}: The specified bucket does not exist" in said(missing)
    assert "no credentials for" in (words := said(s3.url, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""))
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)" in words
    assert f"cannot reach {s3.url}: Could not connect" in said(s3.url, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "hidden" not in said(s3.url, AWS_ENDPOINT_URL="http://someone:hidden@127.0.0.1:9")

    def let_in(actions: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{s3.line.url}/moto-api/reset-auth", actions, headers, method="POST")
        urllib.request.urlopen(request).close()

    let_in(b"0")  # whom it does not know, it refuses
    try:
        assert f"{s3.url} refuses us" in (words := said(s3.url))
        assert "check AWS_ACCESS_KEY_ID" in words
    finally:
        let_in(b"inf")
    assert model.bodies == []
    assert s3.objects() == {}


@pytest.mark.long
def test_what_a_run_has_left_is_read_where_it_is(s3: S3, bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: "" if prompt == "Say q7" else f"a {prompt}"
    recipe = bench.recipe(STEPS, QUERIES)
    assert s3.run("a", recipe).returncode == 0
    assert s3.autoif("a", "run", recipe).returncode == 0  # the same into a local folder
    before = s3.objects()
    row = json.loads(before["answered.jsonl"].splitlines()[0])

    def both(*arguments: object) -> str:
        """What a command says of the remote directory, on a machine that has never seen it, and of the local one."""
        said = []
        for place in (s3.url, bench.out):
            done = s3.autoif("b", *(place if word == "OUT" else word for word in arguments))
            assert done.returncode == 0, done.stderr
            said.append(done.stdout.replace(str(place), "OUT"))
        assert said[0] == said[1]
        return said[0]

    assert both("status", "OUT").endswith("completed\n")
    assert row["id"] in both("trace", "OUT", row["id"])
    assert "dropped at step 2 answered" in both("why", "OUT", "q7")
    said = s3.autoif("b", "report", s3.url)
    assert (said.returncode, said.stdout) == (0, "report.html\n"), said.stderr
    assert row["id"] in (s3.folder / "report.html").read_text()
    assert s3.objects() == before  # who reads changes nothing
    none = f"s3://{s3.bucket}/none"
    for command, url, words in (
        ("status", none, f"there is no run in {none}"), ("report", none, f"{none} holds no run"),
        ("status", missing := "s3://no-such-bucket/run", f"there is no {missing}: The specified bucket does not exist"),
        ("report", missing, f"there is no {missing}: The specified bucket does not exist"),
    ):  # fmt: skip
        done = s3.autoif("b", command, url)
        assert done.returncode in (1, 2), done.stdout
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = s3.autoif("b", "trace", s3.url, "x", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert (done.returncode, "no credentials for" in done.stderr) == (1, True)


@pytest.mark.long
def test_the_records_of_a_run_are_exported_from_where_they_are(s3: S3, tmp_path: Path) -> None:
    assert s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", tmp_path / "out").returncode == 0
    for more in ((), ("--set", "shards=3")):
        assert s3.run("a", AUTOIF, *SMALL, *more).returncode == 0
        for place, name in ((s3.url, "there.jsonl"), (tmp_path / "out", "here.jsonl")):
            done = s3.autoif("b", "export", place, "--format", "sharegpt", "--to", name)
            assert done.returncode == 0, done.stderr
        assert (s3.folder / "there.jsonl").read_bytes() == (s3.folder / "here.jsonl").read_bytes()
        copies = {path.name for path in (tmp_path / "b" / "copies").rglob("*.jsonl")}
        assert copies == ({f"shard_0000{n}.jsonl" for n in range(3)} if more else {"sft_data.jsonl"})  # and no other


def test_a_run_is_watched_from_another_machine(s3: S3, bench: Bench, model: FakeModel) -> None:
    model.latency = 5
    recipe = bench.recipe(STEPS, QUERIES, "executor: {tasks: 3, workers: 2}")
    run = s3.start("a", recipe, "--batch-size", 4, *OFTEN)
    s3.wait_for(".status.json")
    until = time.monotonic() + 60
    while not any(step["requests"] for step in json.loads(s3.objects()[".status.json"])["steps"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    seen = {}
    for machine in ("a", "b"):
        done = s3.autoif(machine, "status", s3.url, "--json")
        assert done.returncode == 1, done.stderr
        seen[machine] = json.loads(done.stdout)
        assert seen[machine]["state"] == "running"
        assert 0 < seen[machine]["steps"][1]["requests"] <= len(QUERIES)
        assert len(seen[machine]["tasks"]) == 3
    assert (seen["a"]["told"], seen["a"]["host"]) == (None, "")
    assert seen["b"]["told"] < 30
    assert seen["b"]["host"]
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    claim = json.loads(s3.objects()[".autoif.json"])
    claim["run"]["seen"] -= 3600
    s3.client.put_object(Bucket=s3.bucket, Key="run/.autoif.json", Body=json.dumps(claim).encode())
    done = s3.autoif("b", "status", s3.url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "silent")
    assert f"as {claim['run']['host']} has told 1 h" in done.stdout
    model.latency = 0
    assert s3.run("b", recipe).returncode == 0
    done = s3.autoif("c", "status", s3.url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "completed")


def test_inputs_come_from_s3(s3: S3, bench: Bench, model: FakeModel, local: dict[str, bytes]) -> None:
    recipe = bench.recipe(STEPS.replace("'Say {{ query }}'", f"s3://{s3.bucket}/prompts/say.jinja"), QUERIES)
    s3.client.put_object(Bucket=s3.bucket, Key="prompts/say.jinja", Body=b"Say {{ query }}")
    s3.client.upload_file(str(bench.folder / "in.jsonl"), s3.bucket, "seeds/in.jsonl")
    near = recipe.read_text()
    recipe.write_text(near.replace("in.jsonl", f"s3://{s3.bucket}/seeds/in.jsonl"))
    done = s3.run("a", recipe)
    assert done.returncode == 0, done.stderr
    assert s3.results() == local
    s3.client.put_object(Bucket=s3.bucket, Key="seeds/in.jsonl", Body=b'{"query": "changed"}\n')
    done = s3.run("a", recipe)
    assert done.returncode == 2
    assert "the file in.jsonl " in done.stderr
    recipe.write_text(near.replace("in.jsonl", f"s3://{s3.bucket}/seeds/none.jsonl"))
    done = s3.autoif("a", "check", recipe)
    assert done.returncode == 2
    line = next(n for n, text in enumerate(recipe.read_text().splitlines(), 1) if "none.jsonl" in text)
    assert f"{recipe}:{line}: step 'given': path: there is no s3://{s3.bucket}/seeds/none.jsonl" in done.stderr
    done = s3.autoif("a", "check", recipe, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stderr


def test_seeds_come_from_a_folder_in_s3(s3: S3) -> None:
    folder = AUTOIF.parent / "sample_data"
    for path in filter(Path.is_file, folder.iterdir()):
        s3.client.upload_file(str(path), s3.bucket, f"seeds/{path.name}")
    done = s3.run("a", AUTOIF, *SMALL, "--end-step", 1, "--seed-dir", f"s3://{s3.bucket}/seeds")
    assert done.returncode == 0, done.stderr
    assert "augment_instructions.jsonl" in s3.results()
