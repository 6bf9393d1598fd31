"""`autoif init`: what it writes runs, and overwrites nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, rows

from autoif_blocks.errors import RecipeError
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.starter import recipes, start


def test_all_recipes_can_be_begun_with() -> None:
    assert recipes() == ["autoif", *sorted(path.stem for path in (ROOT / "pipelines").glob("*.yaml"))]


@pytest.mark.parametrize("name", recipes())
def test_a_copy_stands_alone(name: str, tmp_path: Path) -> None:
    files = start(tmp_path / "mine", name)
    assert all(path.is_relative_to(tmp_path / "mine") for path in files)
    text = files[0].read_text()
    assert (tmp_path / "mine" / "autoif.schema.json").is_file()
    assert text.startswith("# yaml-language-server: $schema=autoif.schema.json\n")
    recipe = Recipe.load(files[0])
    assert all(path.is_relative_to(tmp_path / "mine") for path in recipe.inputs.values())
    assert start(tmp_path / "mine", name) == files  # the same again is in nobody's way


def test_it_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        ["autoif", "init", "mine", "--from", "custom_block"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "next: autoif run mine/custom_block.yaml" in done.stderr
    recipe = Recipe.load(tmp_path / "mine" / "custom_block.yaml", [f"output_dir={tmp_path / 'out'}"])
    recipe.run(RunOptions(limit=2))
    assert rows(tmp_path / "out" / recipe.steps[-1].file)


def test_a_recipe_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text('{"a": 1}\n')
    own = "steps:\n  - {name: s, block: read_jsonl, path: ../data/rows.jsonl, fields: [a]}\n"
    (tmp_path / "recipes" / "own.yaml").write_text(own)
    written = start(tmp_path / "copy", str(tmp_path / "recipes" / "own.yaml"))
    assert [path.relative_to(tmp_path / "copy").as_posix() for path in written] == [
        "own.yaml", "data/rows.jsonl", "autoif.schema.json",
    ]  # fmt: skip
    (named,) = Recipe.load(written[0]).inputs.values()
    assert named == (tmp_path / "copy" / "data" / "rows.jsonl").resolve()


def test_all_that_a_recipe_names_comes_along(tmp_path: Path) -> None:
    """Files that patterns find, the code of blocks and servers, and the modules beside it that this imports."""
    block = "from autoif_blocks import Filter\nimport {0}\nclass Mine(Filter):\n    reject = {0}.reject\n"
    server = "from datatrove.pipeline.inference.servers import InferenceServer\nclass Mine(InferenceServer):\n"
    server += "    async def start_server(self): ...\n    async def monitor_health(self): ...\n"
    files = {
        "q.jsonl": '{"query": "q"}\n', "more1.txt": "a b", "lib/starter_server.py": server,
        "recipes/evals/one.txt": "c d", "recipes/evals/two.txt": "e f",
        "recipes/starter_block.py": block.format("starter_helper"), "recipes/starter_other.py": "not imported",
        "recipes/starter_helper.py": "import starter_last\nreject = starter_last.reject\n",
        "recipes/starter_last.py": "reject = lambda self, record: None\n",
        "recipes/own.yaml": "models: {m: {serve: '../lib/starter_server.py:Mine', model: x}}\nsteps:\n"
        "  - {name: s, block: read_jsonl, path: ../q.jsonl, fields: [query]}\n"
        "  - {name: d, block: decontaminate, fields: [query], against: ['evals/*.txt', '../more*.txt']}\n"
        "  - {name: f, block: 'starter_block.py:Mine'}\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    written = start(tmp_path / "copy", str(tmp_path / "recipes" / "own.yaml"))
    assert sorted(path.relative_to(tmp_path / "copy").as_posix() for path in written[1:-1]) == [
        "evals/one.txt", "evals/two.txt", "lib/starter_server.py", "more1.txt", "q.jsonl", "starter_block.py",
        "starter_helper.py", "starter_last.py",
    ]  # fmt: skip
    text = written[0].read_text()
    for named in (
        "'lib/starter_server.py:Mine'",
        "path: q.jsonl",
        "['evals/*.txt', 'more*.txt']",
        "'starter_block.py:Mine'",
    ):
        assert named in text


def test_two_files_are_not_made_one(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for name, text in (("a.jsonl", '{"q": 1}\n'), ("recipes/a.jsonl", '{"q": 2}\n')):
        (tmp_path / name).write_text(text)
    own = tmp_path / "recipes" / "own.yaml"
    own.write_text(
        "steps:\n  - {name: s, block: read_jsonl, path: ../a.jsonl}\n  - {name: t, block: x, path: a.jsonl}\n"
    )
    with pytest.raises(RecipeError, match=r"two files of the recipe would both be .*a\.jsonl"):
        start(tmp_path / "copy", str(own))
    assert not (tmp_path / "copy").exists()


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "score.jinja").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecipeError, match=r"not overwritten: .*score\.jinja\. Name another directory"):
        start(tmp_path, "paper")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "prompts" / "score.jinja").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "said"),
    [("papper", "did you mean 'paper'"), ("gone.yaml", "neither a file nor one of ours"), ("broken.yaml", "not YAML")],
)
def test_what_is_no_recipe(source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("steps: [")
    with pytest.raises(RecipeError, match=said):
        start(tmp_path / "mine", source)
    assert not (tmp_path / "mine").exists()


def test_the_schema_is_the_one_of_this_version(tmp_path: Path) -> None:
    start(tmp_path)
    ours = json.loads((ROOT / "autoif.schema.json").read_text())
    assert json.loads((tmp_path / "autoif.schema.json").read_text()) == ours
