"""What is installed, and what it promises: bounded dependencies with a reason each, public names, typed."""

from __future__ import annotations

import re
import tomllib

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
