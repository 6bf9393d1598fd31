"""The JSON Schema of recipes, by a validator that nobody here wrote: good recipes fit it, broken ones do not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import AUTOIF, ROOT
from jsonschema import Draft202012Validator
from test_recipe import FILES, MODEL, READ, STEPS, WHOLE, write

from autoif_blocks import recipe
from autoif_blocks.blocks import BLOCKS
from autoif_blocks.errors import RecipeError
from autoif_blocks.schema import schema
from autoif_blocks.source import read

FILE = ROOT / "autoif.schema.json"
VALIDATOR = Draft202012Validator(json.loads(FILE.read_text()))
RECIPES = [AUTOIF, *sorted((ROOT / "pipelines").glob("*.yaml"))]
# What a schema can know; all else is about files, and how steps fit one another.
STRUCTURE = re.compile(
    r"has no option|has no '|must be (a|an|true|null|at least|in|above|'local')\b|needs the option|"
    r"there is no block '\w+';|needs a '(block|name)'|needs 'steps'|cannot name a step|belongs to one of"
)
# … and what only Python code knows, though it sounds the same.
UNKNOWABLE = {
    "step: reserved name", "step: no such class", "step: no such class at all", "step: no such class there",
    "step: a text for fields", "step: file outside", "step: typo of theirs",
    "file: refused in sandbox", "file: no tasks",
}  # fmt: skip


def misfits(path: Path) -> list[str]:
    return [
        f"{'.'.join(map(str, error.path))}: {error.message}"[:300] for error in VALIDATOR.iter_errors(read(path).data)
    ]


def test_the_committed_schema_is_fresh() -> None:
    made = schema()
    Draft202012Validator.check_schema(made)
    assert json.loads(FILE.read_text()) == made, "run: autoif schema -o autoif.schema.json"


def test_it_knows_all_keys_and_blocks() -> None:
    made = schema()
    assert set(made["properties"]) == set(recipe._TOP)
    assert set(made["$defs"]) == {"step", "block", *BLOCKS}
    undescribed = [
        f"{name}.{option}"
        for name in BLOCKS
        for option, about in made["$defs"][name]["properties"].items()
        if option not in ("name", "block") and not about.get("description")
    ]
    assert undescribed == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_good_recipes_fit(path: Path) -> None:
    assert misfits(path) == []
    first = path.read_text().splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(.+)", first)
    assert named is not None, first
    assert (path.parent / named[1]).resolve() == FILE


def whole_recipes() -> dict[str, tuple[str, list[str]]]:
    steps = {f"step: {name}": (f"{READ}  {step}\n{MODEL}", said) for name, (step, said) in STEPS.items()}
    files = {f"file: {name}": (text, said) for name, (text, said) in WHOLE.items() if isinstance(text, str)}
    return steps | files


BROKEN = whole_recipes()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_recipes_do_not_fit(name: str, tmp_path: Path) -> None:
    text, said = BROKEN[name]
    path = write(tmp_path, text, FILES)
    try:
        found = misfits(path)
    except RecipeError:
        return  # it is no YAML, and no schema is ever asked
    structural = [message for message in said if STRUCTURE.search(message)]
    if name in UNKNOWABLE:
        assert structural
        assert not found
    else:
        assert found or not structural, f"the schema takes what is wrong: {structural}"


@pytest.mark.parametrize(
    "value",
    ["3", "${T_N}", "${T_N:-3}", "'3'", "[3]", "3.5", "true", "null"],
)
def test_a_value_from_the_environment_may_be_any(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor sees the file as it is written; the check sees the value."""
    step = f"  - name: b\n    block: respond\n    prompt: x\n    n: {value}\n"
    data: Any = yaml.safe_load(f"{READ}{step}{MODEL}")
    assert (list(VALIDATOR.iter_errors(data)) == []) == (value in ("3", "${T_N}", "${T_N:-3}"))


def test_it_is_printed_and_written(tmp_path: Path) -> None:
    printed = subprocess.run(["autoif", "schema"], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == schema()
    assert subprocess.run(["autoif", "schema", "-o", str(tmp_path / "s.json")]).returncode == 0
    assert (tmp_path / "s.json").read_text() == FILE.read_text()
    failed = subprocess.run(["autoif", "schema", "-o", "/proc/s.json"], capture_output=True, text=True)
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)
    assert "cannot write /proc/s.json" in failed.stderr
