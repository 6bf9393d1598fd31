"""Remote places: runs into a URL, inputs from one. `file://` has all of it but a network, which `test_s3.py` has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from conftest import Bench, FakeModel, rows, tree
from fsspec.implementations.memory import MemoryFile

from autoif_blocks import cli
from autoif_blocks.autoif import overrides_for
from autoif_blocks.cache import FILE_NAME, Cache
from autoif_blocks.cache_mirror import CacheMirror
from autoif_blocks.claim import FILE, STALE, Claim
from autoif_blocks.errors import RecipeError, StopRun
from autoif_blocks.identity import identity
from autoif_blocks.lineage_command import trace, why
from autoif_blocks.mirror import STATUS
from autoif_blocks.recipe import Recipe
from autoif_blocks.report import report
from autoif_blocks.run import RunOptions
from autoif_blocks.status_command import look_at
from autoif_blocks.storage import Remote, check_url, copy_of, fetch, local_folder
from autoif_blocks.upkeep import Selection, prune, shares

STEPS = "  - {name: answered, block: respond, n: 2, prompt: 'Say {{ query }}'}\n"
QUERIES = [{"query": f"q{n}"} for n in range(8)]

# One request after the other: those before the last are in the cache when it is asked.
OFTEN = ["flush_interval=0.05", "send_interval=0.05", "models.teacher.max_concurrency=1"]


class Machines:
    """The same recipe on machines that have nothing in common but a remote place."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.there = bench.folder / "there"
        self.url = self.there.as_uri()
        self.said: list[str] = []
        monkeypatch.setenv("AUTOIF_WORK_DIR", str(bench.folder / "nowhere"))

    def recipe(self, machine: str, *more: str, steps: str = STEPS) -> Recipe:
        path = self.bench.recipe(steps, QUERIES)
        return Recipe.load(path, [f"output_dir={self.url}", f"work_dir={self.bench.folder / machine}", *more])

    def run(self, machine: str, *more: str, steps: str = STEPS, **options: Any) -> dict[str, Any]:
        return self.recipe(machine, *more, steps=steps).run(RunOptions(**options, listener=Heard(self.said)))

    def here(self, machine: str) -> Path:
        return local_folder(self.url, self.bench.folder / machine)


class Heard:
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def started(self, *_: Any) -> None: ...

    def note(self, text: str) -> None:
        self.said.append(text)

    def watching(self, _: Any) -> Any:
        return open(os.devnull)  # noqa: PTH123


@pytest.fixture
def machines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(bench, monkeypatch)


def results(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if not name.startswith(".")}


def test_another_machine_continues_where_one_has_ended(machines: Machines, model: FakeModel, bench: Bench) -> None:
    local = bench.run(STEPS, QUERIES) and results(bench.out)
    assert machines.run("a")["records"] == 16
    assert results(machines.there) == results(machines.here("a")) == local
    run = (machines.there / "run.json").read_text()
    assert str(machines.here("a")) not in run
    assert machines.url in run
    asked = len(model.bodies)
    result = machines.run("b")
    assert (result["totals"]["requests"], result["all_commands"]["commands"]) == (0, 2)
    assert len(model.bodies) == asked
    assert results(machines.here("b")) == local
    assert any(said.startswith("brought ") and machines.url in said for said in machines.said)
    # What b has made of it is what a goes on with.
    machines.run("b", steps=STEPS.replace("n: 2", "n: 3"), overwrite=True)
    assert machines.run("a", steps=STEPS.replace("n: 2", "n: 3"))["totals"]["requests"] == 0
    with pytest.raises(RecipeError, match=f"{machines.url} holds the results of a different run"):
        machines.run("a")


def test_only_what_has_changed_is_sent(machines: Machines) -> None:
    machines.run("a")
    before = {path: path.stat().st_mtime_ns for path in machines.there.rglob("*") if path.is_file()}
    machines.run("a")
    changed = {path.relative_to(machines.there) for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert {path.parts[0] for path in changed} == {"run.json", FILE, STATUS, "logs"}


def test_what_cannot_be_sent_is_kept_and_sent_by_the_same_command(machines: Machines, model: FakeModel) -> None:
    machines.run("a", end_step="given")
    old = (machines.there / "run.json").read_bytes()
    blocked = machines.there / "dropped" / "answered.jsonl"
    blocked.mkdir(parents=True)
    with pytest.raises(StopRun, match="the run is complete, but cannot reach") as caught:
        machines.run("a")
    assert f"kept in {machines.here('a')}: the same command sends it" in str(caught.value)
    assert (machines.there / "run.json").read_bytes() == old  # it tells of no file that is not there
    assert len(results(machines.here("a"))) == 4
    blocked.rmdir()
    asked = len(model.bodies)
    machines.run("a")
    assert len(model.bodies) == asked
    assert results(machines.there) == results(machines.here("a"))


def test_completions_of_two_machines_are_put_together(machines: Machines, model: FakeModel) -> None:
    machines.run("a", end_step="given")
    cache = machines.there / "cache"
    shutil.rmtree(cache)
    cache.write_text("in the way")  # a's completions cannot be sent
    with pytest.raises(StopRun):
        machines.run("a")
    cache.unlink()
    machines.run("b", steps=STEPS.replace("Say", "Tell"), overwrite=True)
    asked = len(model.bodies)
    machines.run("a", overwrite=True)
    machines.run("a", steps=STEPS.replace("Say", "Tell"), overwrite=True)
    assert len(model.bodies) == asked


def test_results_of_a_place_that_was_emptied_are_sent_again(machines: Machines) -> None:
    machines.run("a")
    before = results(machines.there)
    shutil.rmtree(machines.there)
    machines.run("a")
    assert results(machines.there) == before


def test_no_resume_deletes_what_is_elsewhere(machines: Machines, model: FakeModel) -> None:
    machines.run("a")
    asked = len(model.bodies)
    machines.run("b", resume=False)
    assert len(model.bodies) == 2 * asked
    model.answer = lambda prompt: 401
    with pytest.raises(StopRun):
        machines.run("b", resume=False)
    assert not (machines.there / "answered.jsonl").exists()
    assert not (machines.there / "cache" / FILE_NAME).exists()


def test_new_completions_are_sent_while_the_run_goes_on(machines: Machines, model: FakeModel) -> None:
    def answer(prompt: str) -> str:
        while prompt.endswith("q7") and not list(machines.there.glob(f"cache/tasks/*/{FILE_NAME}")):
            assert time.monotonic() < until
        return "ok"

    until = time.monotonic() + 20
    model.answer = answer
    machines.run("a", *OFTEN)
    assert not list(machines.there.glob("cache/tasks/*/*"))  # the whole has them now


def test_a_place_that_fails_for_a_while_is_told_of_once(machines: Machines, model: FakeModel) -> None:
    def answer(prompt: str) -> str:
        if prompt.endswith("q7"):
            while not any("the run goes on, but" in said for said in machines.said):
                assert time.monotonic() < until
            (machines.there / "cache" / "tasks").unlink()
        return "ok"

    until = time.monotonic() + 20
    model.answer = answer
    (machines.there / "cache").mkdir(parents=True)
    (machines.there / "cache" / "tasks").write_text("in the way")
    machines.run("a", *OFTEN)
    assert sum("the run goes on, but" in said for said in machines.said) == 1
    assert held(machines.there / "cache") == 16


@pytest.mark.parametrize("way", ["another_machine", "alive", "dead", "silent", "let_go"])
def test_a_place_that_a_run_is_using_is_left_alone(machines: Machines, way: str) -> None:
    claim = Claim(Remote(machines.url), uuid4().hex)
    assert claim.take() == ""
    claim.written()
    told = json.loads((machines.there / FILE).read_text())
    if way == "another_machine":
        told["run"]["machine"] = "elsewhere"
    elif way == "dead":
        told["run"]["started"] = "1"  # another process has this number now
    elif way == "silent":
        told["run"].update(machine="elsewhere", seen=time.time() - STALE - 1, lasts=STALE)
    (machines.there / FILE).write_text(json.dumps(told))
    if way == "let_go":
        claim.release()
    if way in ("another_machine", "alive"):
        with pytest.raises(StopRun, match=rf"process {os.getpid()}\) is using {machines.url}, it was there"):
            machines.run("a")
        assert not (machines.there / "run.json").exists()
        claim.renew()
    else:
        machines.run("a")
        assert any("taken over" in said for said in machines.said) == (way != "let_go")
        with pytest.raises(StopRun, match="has taken"):
            claim.renew()


def completions(folder: Path, first: int, last: int) -> None:
    cache = Cache(folder)
    for number in range(first, last):
        cache.put(b"%016d" % number, f"value {number}", "step")
    cache.close()


def held(folder: Path) -> int:
    return sum(share.completions for share in shares(folder))


def test_a_cache_travels_in_pieces_and_arrives_whole(tmp_path: Path) -> None:
    remote, kept = Remote((tmp_path / "there").as_uri()), dict[str, Any]()
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    mirror = CacheMirror(remote, here, kept, lambda: None)
    list(mirror.bring())
    for last in (10, 10, 15):
        completions(here, 0, last)
        mirror.send_new()
    assert len(remote.files()) == 2  # nothing was new the second time
    list(CacheMirror(remote, elsewhere, {}, lambda: None).bring())
    assert held(elsewhere) == 15
    mirror.send_whole(print)
    assert remote.files() == [FILE_NAME]
    before = (tmp_path / "there" / FILE_NAME).stat().st_mtime_ns
    mirror.send_whole(print)
    assert (tmp_path / "there" / FILE_NAME).stat().st_mtime_ns == before
    # Rows that are gone are gone there; and their numbers, given to others, hide nothing.
    prune(here, Selection(older_than=-1.0))
    completions(here, 100, 140)
    mirror.send_new()
    list(CacheMirror(remote, tmp_path / "third", {}, lambda: None).bring())
    assert held(tmp_path / "third") == 15 + 40
    # A folder that has something of its own keeps it; one that has not takes what is there.
    completions(elsewhere, 500, 503)
    mirror.send_whole(print)
    list(CacheMirror(remote, elsewhere, {}, lambda: None).bring())
    assert held(elsewhere) == 15 + 3 + 40


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:hidden@bucket/run", "must not hold a user, a password or a query: they go into AWS_ACCESS_KEY_ID"),
        ("s3://bucket/run?signature=hidden", "must not hold a user"),
        ("s3://bucket", "name a folder in it that holds nothing else: s3://bucket/run"),
        ("S4://bucket/run", "a URL must be like s3://bucket/folder"),
        ("s4://bucket/run", "'s4://' is no kind of storage that fsspec knows"),
        ("simplecache::s3://bucket/run", "a URL must be like"),
        ("https://host/run", "nothing can be written to https://"),
        ("gs://bucket/run", "gs:// needs a package that is not installed: Please install gcsfs"),
        ("file:///", "names no place"),
    ],
)
def test_a_place_that_cannot_be_used_is_a_mistake_of_the_recipe(machines: Machines, url: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        machines.recipe("a", f"output_dir={url}")
    assert said in str(caught.value)
    assert "output_dir" in str(caught.value)
    assert "hidden" not in str(caught.value)
    with pytest.raises(RecipeError, match="cache_dir"):
        machines.recipe("a", f"cache_dir={url}")


def test_a_missing_package_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(
        ValueError, match=r"s3:// needs a package that is not installed: pip install 'autoif-blocks\[s3"
    ):
        check_url("s3://bucket/run", written=True)


def test_tasks_of_a_cluster_need_a_folder_that_they_share(bench: Bench) -> None:
    path = bench.recipe(STEPS, QUERIES, "executor: {type: ray}")
    with pytest.raises(RecipeError, match="add work_dir, a folder that all machines of the cluster share"):
        Recipe.load(path, [f"output_dir={bench.folder.as_uri()}/there"])


def test_inputs_from_urls_are_the_same_inputs(machines: Machines, model: FakeModel, bench: Bench) -> None:
    there = bench.folder / "inputs"
    there.mkdir()
    (there / "say.jinja").write_text("Say {{ query }}")
    path = bench.recipe(STEPS.replace("'Say {{ query }}'", "say.jinja"), QUERIES)
    shutil.copy(there / "say.jinja", bench.folder)
    shutil.copy(bench.folder / "in.jsonl", there)
    near = Recipe.load(path)
    urls = [f"steps.given.path={there.as_uri()}/in.jsonl", f"steps.answered.prompt={there.as_uri()}/say.jinja"]
    far = Recipe.load(path, urls)
    assert identity(far) == identity(near)
    before = {path: path.stat().st_mtime_ns for path in far.inputs.values()}
    assert {path: path.stat().st_mtime_ns for path in Recipe.load(path, urls).inputs.values()} == before
    near.run()
    asked = len(model.bodies)
    far.run()
    assert len(model.bodies) == asked
    (there / "in.jsonl").write_text('{"query": "another"}\n')
    assert identity(Recipe.load(path, urls)) != identity(near)
    (there / "in.jsonl").write_text('{"query": "one"}\nno json\n')
    with pytest.raises(RecipeError, match=rf"in read_jsonl: {there.as_uri()}/in.jsonl:2: not JSON".removeprefix("in ")):
        Recipe.load(path, urls)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{there}/none.jsonl", "path: there is no {there}/none.jsonl"),
        ("{there}", "path: {there} is a folder: name a file in it"),
        ("https://user:hidden@host/in.jsonl", "path: a URL must not hold a user, a password or a query"),
        ("http://127.0.0.1:9/in.jsonl", "path: "),
    ],
)
def test_an_input_that_cannot_be_had_is_named_with_its_line(machines: Machines, url: str, said: str) -> None:
    (machines.there).mkdir()
    path = machines.bench.recipe(STEPS, QUERIES)
    path.write_text(path.read_text().replace("in.jsonl", url.format(there=machines.url)))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "read_jsonl" in text)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert f"{path}:{line}: step 'given': {said.format(there=machines.url)}" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_input_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one")
    found = fetch((tmp_path / "in.txt").as_uri(), tmp_path / "work")
    assert found.read_text() == "one"
    (tmp_path / "in.txt").unlink()
    with pytest.raises(ValueError, match="there is no file://"):
        fetch((tmp_path / "in.txt").as_uri(), tmp_path / "work")
    assert [path.name for path in found.parent.iterdir() if path.name.endswith(".tmp")] == []


def test_seeds_come_from_a_remote_directory(tmp_path: Path) -> None:
    (tmp_path / "my queries.jsonl").write_text("")
    (tmp_path / "seeds.txt").write_text("")
    found = overrides_for("autoif.yaml", seed_dir=tmp_path.as_uri())
    assert [line.split(".path=")[1] for line in found] == [
        f'"{tmp_path.as_uri()}/seeds.txt"', f'"{tmp_path.as_uri()}/my queries.jsonl"',
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="--seed-dir: there is no file:"):
        overrides_for("autoif.yaml", seed_dir=f"{tmp_path.as_uri()}/none")


def test_a_remote_cache_is_shown_and_pruned(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    machines.run("a")
    for argument in ([machines.url], [f"{machines.url}/cache"]):
        done(["cache", *argument])
        assert ": 16 completions" in capsys.readouterr().out
    done(["cache", machines.url, "--prune", "--all"])
    assert "deleted 16 completions" in capsys.readouterr().out
    assert held(machines.there / "cache") == 0


def done(arguments: list[str]) -> None:
    cli.cli(arguments, standalone_mode=False)


def test_a_shared_remote_cache(machines: Machines, model: FakeModel, bench: Bench) -> None:
    cache = bench.folder / "shared"
    machines.run("a", f"cache_dir={cache.as_uri()}")
    assert held(cache) == 16
    assert not (machines.there / "cache").exists()
    asked = len(model.bodies)
    Recipe.load(bench.recipe(STEPS, QUERIES), [f"cache_dir={cache.as_uri()}", f"work_dir={bench.folder / 'b'}"]).run()
    assert len(model.bodies) == asked


def test_the_command_line_runs_into_a_url(tmp_path: Path, bench: Bench) -> None:
    command = [sys.executable, "-W", "error", "-m", "autoif_blocks", "run", str(bench.recipe(STEPS, QUERIES))]
    ran = subprocess.run(
        [*command, "--output-dir", f"{tmp_path.as_uri()}/there"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "AUTOIF_WORK_DIR": str(tmp_path / "work")},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert f"16 records in {tmp_path.as_uri()}/there/answered.jsonl" in ran.stderr + ran.stdout
    assert str(tmp_path / "work") not in ran.stderr + ran.stdout


# Reading what a run has left


def test_what_a_run_has_left_is_read_by_its_url(
    machines: Machines, model: FakeModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model.answer = lambda prompt: "" if prompt == "Say q7" else f"a {prompt}"
    machines.run("a")
    monkeypatch.chdir(machines.bench.folder)

    def both(tell: Callable[..., Any], *arguments: Any) -> str:
        said = []
        for place in (machines.url, machines.there):
            tell(place, *arguments)
            said.append(capsys.readouterr().out.replace(str(place), "OUT"))
        assert said[0] == said[1]
        return said[0]

    row = rows(machines.there / "answered.jsonl")[0]
    assert row["id"] in both(trace, row["id"])
    assert "dropped at step 2 answered" in both(why, "q7")
    assert look_at(machines.url) == look_at(machines.there)
    assert look_at(machines.url).complete
    assert report(machines.url) == Path("report.html")
    assert row["id"] in Path("report.html").read_text(encoding="utf-8")
    for tell in (trace, why):
        with pytest.raises(RecipeError, match=rf"{machines.url}.*'nobody'"):
            tell(machines.url, "nobody")
    with pytest.raises(RecipeError, match=rf"there is no run in {machines.url}none"):
        look_at(f"{machines.url}none")
    for wrong, words in (("nosuch://x/y", "no kind of storage"), ("s3://user:secret@x/y", "must not hold a user")):
        for read in (look_at, report):
            with pytest.raises(RecipeError, match=words) as caught:
                read(wrong)
            assert "secret" not in str(caught.value)


def test_a_copy_is_what_is_wanted_of_a_folder_and_no_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOIF_WORK_DIR", str(tmp_path / "work"))
    there = tmp_path / "there"
    (there / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c", "large"):
        (there / name).write_text(name)

    def copied(wanted: str = "a b sub/c") -> dict[str, str]:
        folder = copy_of(there.as_uri(), lambda name: name in wanted.split())
        found = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".version")]
        return {str(path.relative_to(folder)): path.read_text() for path in found}

    assert copied() == {"a": "a", "b": "b", "sub/c": "sub/c"}
    kept = next((tmp_path / "work" / "copies").glob("there-*"))
    (kept / "a").write_text("not read again")
    (there / "b").write_text("new")
    (there / "sub" / "c").unlink()
    assert copied() == {"a": "not read again", "b": "new"}
    assert copied("a") == {"a": "not read again", "b": "new"}


def test_a_name_in_a_bucket_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOIF_WORK_DIR", str(tmp_path / "work"))
    bucket = f"/bucket-{uuid4().hex}"
    store = fsspec.filesystem("memory").store
    names = ["run/../../../out", "run//out", "run/fine"]
    try:
        for name in names:
            store[f"{bucket}/{name}"] = MemoryFile(path=f"{bucket}/{name}", data=b"x")
        copy_of(f"memory:/{bucket}/run", lambda name: True)
    finally:
        for name in names:
            del store[f"{bucket}/{name}"]
    found = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".version")]
    assert [path.name for path in found] == ["fine"]
