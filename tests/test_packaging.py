"""What is installed, and what it promises: bounded dependencies with a reason each, public names, typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

import autoif_blocks

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_bounded_and_says_why(requirement: str) -> None:
    """Pitfall 18: unpinned requirements; a newer client library broke the scripts."""
    assert re.match(r"[a-z0-9-]+>=\d", requirement), "a lower bound is what the tests run with"
    assert re.search(rf'"{re.escape(requirement)}",\s+# \w+', PYPROJECT), "every dependency is a decision"


@pytest.mark.parametrize("name", ["datatrove", "aiohttp", "pydantic", "py3langid"])
def test_what_has_broken_its_users_is_bounded_above(name: str) -> None:
    assert any(re.match(rf"{name}>=[\d.]+,<\d", requirement) for requirement in PROJECT["dependencies"])


def test_the_public_names_are_these() -> None:
    assert sorted(autoif_blocks.__all__) == autoif_blocks.__all__
    assert set(autoif_blocks.__all__) == {
        "AutoIF", "AutoIFError", "Block", "DropRecord", "Executor", "Filter", "Generator", "ModelUnavailable",
        "Outcome",
        "Reader", "Recipe", "RecipeError", "Record", "RunOptions", "SandboxUnavailable", "Scorer", "StopRun",
    }  # fmt: skip
    for name in autoif_blocks.__all__:
        assert getattr(autoif_blocks, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        autoif_blocks.Nothing  # noqa: B018


def test_the_package_is_typed_and_its_data_travels() -> None:
    assert (ROOT / "autoif_blocks" / "py.typed").exists()
    included = tomllib.loads(PYPROJECT)["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert set(included) == {"autoif.yaml", "pipelines", "sample_data"}


CONSUMER = """
from autoif_blocks import AutoIF, Filter, Record, Recipe

class Short(Filter):
    def reject(self, record: Record) -> str | None:
        return "long" if len(record["response"]) > 9 else None

recipe: Recipe = Recipe.load("autoif.yaml")
reveal_type(recipe.target)
AutoIF(N=1).run(end_step=3)
AutoIF(N="1")
class Wrong(Filter):
    def reject(self, record: Record) -> int:
        return 1
"""


@pytest.mark.heavy
def test_the_types_of_an_installed_package_reach_its_users(tmp_path: Path) -> None:
    """From a wheel, in a folder of its own, so that no file of the checkout helps."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(ROOT)]
    subprocess.run(install, check=True, timeout=300)
    assert (site / "autoif_blocks" / "py.typed").exists()
    assert (site / "autoif_blocks" / "shipped" / "autoif.yaml").exists()
    (tmp_path / "consumer.py").write_text(CONSUMER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "consumer.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": "", "PYTHONPATH": str(site)}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    told = re.findall(r"^consumer.py:\d+: \w+: (.*)$", done.stdout, re.MULTILINE)
    assert [" ".join(line.split()[:4]) for line in told] == [
        'Revealed type is "int', 'Argument "N" to "AutoIF"', 'Return type "int" of',
    ], done.stdout  # fmt: skip
