"""Prompts with what verifies an answer: exported, and as an environment that the real `verifiers` library plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, rows
from test_export import exported, loaded
from test_lineage import Said, call
from test_rewards import ALWAYS, HAS_A, HOSTILE, NEVER, constraint

from autoif_blocks.errors import RecipeError
from autoif_blocks.export import export
from autoif_blocks.export.prompts import PROMPT_LAYOUTS, task_of
from autoif_blocks.records import to_line

TASKS = {
    "followed": [constraint(HAS_A)],
    "weighted": [constraint(HAS_A, weight=3), constraint(NEVER)],
    "hostile": [constraint(HAS_A), constraint(HOSTILE["leaves"]), constraint(HOSTILE["loops"]), constraint(ALWAYS)],
    "missed": [constraint(NEVER)],
}
REWARDS = {"followed": 1.0, "weighted": 0.75, "hostile": 0.5, "missed": 0.0}
STEPS = "\n  - {name: prompts, block: format_rlvr, constraints: several, system: be kind, keep: [query]}\n"


def run(bench: Bench) -> Path:
    bench.run(STEPS, [{"query": name, "instruction": "i", "several": several} for name, several in TASKS.items()])
    return bench.out


def row_of(name: str, several: list[dict[str, Any]]) -> dict[str, Any]:
    """As open-instruct reads it."""
    truth = [{"weight": 1.0, "pass_rate": "> 0.5", **each} for each in several]
    said = [{"role": "system", "content": "be kind"}, {"role": "user", "content": f"{name}\ni"}]
    words = "\n".join("i" for _ in several)
    return {"messages": said, "ground_truth": truth, "dataset": "autoif", "constraint": words}


def read(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    read = [{**row, "ground_truth": json.loads(row["ground_truth"])} for row in found]
    return sorted(read, key=lambda row: str(row["messages"]))


EXPECTED = sorted((row_of(name, several) for name, several in TASKS.items()), key=lambda row: str(row["messages"]))


def test_prompts_have_the_columns_that_open_instruct_reads(bench: Bench) -> None:
    assert export(run(bench), "rlvr", bench.folder / "set") == len(TASKS)
    found = rows(bench.folder / "set" / "data" / "train.jsonl")
    assert [list(row) for row in found] == [list(PROMPT_LAYOUTS["rlvr"])] * len(TASKS)
    assert read(found) == EXPECTED
    assert "\n4 prompts with functions that verify an answer" in (bench.folder / "set" / "README.md").read_text()


@pytest.mark.heavy
@pytest.mark.parametrize("form", ["folder", "x.jsonl", "x.parquet"])
def test_the_real_datasets_library_loads_prompts(bench: Bench, form: str) -> None:
    export(run(bench), "rlvr", bench.folder / form)
    found = loaded(*exported(bench, form))
    assert (found["columns"], read(found["rows"])) == (list(PROMPT_LAYOUTS["rlvr"]), EXPECTED)


USER = [{"role": "user", "content": "q"}]
GOOD = {"messages": USER, "ground_truth": json.dumps([constraint(ALWAYS)]), "dataset": "autoif"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ground_truth": "[]"}, "at least one constraint"), ({"ground_truth": [1]}, "'ground_truth' must be a text"),
        ({"messages": []}, "must end with the user's"), ({"messages": "q"}, "must be a list of {role, content}"),
        ({"messages": [*USER, {"role": "assistant", "content": "r"}]}, "must end with the user's"),
        ({"dataset": None}, "'dataset' must be a text"), ({"constraint": 7}, "'constraint' must be a text"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(change: dict[str, Any], told: str) -> None:
    assert task_of(to_line(GOOD)).turns == [("user", "q")]
    with pytest.raises(ValueError, match=r".") as error:
        task_of(to_line({**GOOD, **change}))
    assert told in str(error.value)


def test_a_package_is_written_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    out, target = run(bench), bench.folder / "My-Env"
    for _ in range(2):  # an export replaces an export
        assert call(monkeypatch, "export", out, "--format", "verifiers", "--to", target) == 0
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert files == ["README.md", "my_env/__init__.py", "my_env/data.jsonl", "pyproject.toml"]
    project = tomllib.loads((target / "pyproject.toml").read_text())["project"]
    assert (project["name"], "autoif-blocks" in project["dependencies"]) == ("my-env", True)
    compile((target / "my_env" / "__init__.py").read_text(), "my_env", "exec")
    assert {tuple(row) for row in rows(target / "my_env" / "data.jsonl")} == {
        (*PROMPT_LAYOUTS["rlvr"], "id", "metadata")
    }
    assert "from my_env import load_environment" in (target / "README.md").read_text()
    (target / "my_env" / "mine.py").write_text("mine")
    capsys.readouterr()
    for arguments, told in (
        (("--to", target), "is no folder that an export has written"),
        (("--to", bench.folder / "7th"), "'7th' cannot be the name of a Python package"),
        (("--to", bench.folder / "x.jsonl"), "cannot be the name of a Python package"),
        (("--to", bench.folder / "import"), "cannot be the name of a Python package"),
        (("--push-to-hub", "me/set"), "is no data set: name a folder with --to"),
    ):
        assert call(monkeypatch, "export", out, "--format", "verifiers", *arguments) == 2
        assert told in capsys.readouterr().err
    assert (target / "my_env" / "mine.py").read_text() == "mine"


def test_chats_are_no_prompts(bench: Bench) -> None:
    bench.run("\n  - {name: chat, block: format_sft}\n", [{"query": "q", "instruction": "i", "response": "r"}])
    with pytest.raises(RecipeError, match=r"chat\.jsonl:1: .*there is no dataset and no ground_truth and no messages"):
        export(bench.out, "verifiers", bench.folder / "env")
    assert not (bench.folder / "env").exists()


PLAYED = """
import asyncio, json, sys
import verifiers.v1 as vf
import my_env

async def main():
    environment = my_env.load_environment()
    assert isinstance(environment, vf.Env)
    client = vf.EvalClientConfig(base_url=sys.argv[1], api_key_var="NO_KEY")
    context = vf.ModelContext(model="policy", client=client, sampling=vf.SamplingConfig(temperature=0.5))
    slots = [slot for task in environment.taskset for slot in environment.slots(task, 2)]
    async with environment.serving():
        episodes = await asyncio.gather(*(environment.run_slot(slot, context) for slot in slots))
    traces = [episode.traces[0] for episode in episodes]
    print(json.dumps([
        [slot.task.data.prompt, slot.task.data.system_prompt, trace.ok, trace.reward, [e.message for e in trace.errors]]
        for slot, trace in zip(slots, traces)
    ]))

asyncio.run(main())
"""


@pytest.mark.heavy
@pytest.mark.verifiers
def test_the_real_verifiers_library_plays_it(bench: Bench) -> None:
    """Loads it, has a model on a real server answer, and scores, all by the library's own means."""
    python = os.environ.get("AUTOIF_VERIFIERS_PYTHON", sys.executable)
    if subprocess.run(
        [python, "-c", "import importlib.util as u; u.find_spec('verifiers').name"], capture_output=True, check=False
    ).returncode:
        said = f"{python} has no verifiers: pip install verifiers, in an environment of its own; see .ci/run"
        pytest.fail(said) if os.environ.get("AUTOIF_VERIFIERS") == "required" else pytest.skip(said)
    export(run(bench), "verifiers", bench.folder / "my-env")
    bench.model.answer = lambda prompt: "<think>b</think>an answer"
    environment = {"PYTHONPATH": str(bench.folder / "my-env"), "NO_KEY": "x", "HOME": str(bench.folder)}
    done = subprocess.run(
        [python, "-c", PLAYED, bench.model.url], text=True, capture_output=True, check=False, timeout=300,
        env={**os.environ, **environment}, cwd=bench.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    played = json.loads(done.stdout.splitlines()[-1])
    assert len(played) == 2 * len(TASKS) == len(bench.model.prompts)
    assert [errors for *_, errors in played if errors] == []
    assert {prompt.split()[0]: reward for prompt, _, _, reward, _ in played} == REWARDS
    assert {(system, ok) for _, system, ok, *_ in played} == {("be kind", True)}
    assert {body["model"] for body in bench.model.bodies} == {"policy"}
    assert {tuple(turn["role"] for turn in body["messages"]) for body in bench.model.bodies} == {("system", "user")}
