"""What the README shows besides commands, recipes and programs, which test_docs.py runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from documented import PAGES, commands, of

README = (ROOT / "README.md").read_text()


def test_the_readme_shows_commands() -> None:
    shown = [command for page in PAGES for inside in of(page, "sh") for command in commands(inside)]
    assert sum(command.startswith("autoif ") for command in shown) > 60
    assert len([command for inside in of(PAGES[0], "sh") for command in commands(inside)]) > 20
    assert commands("# one\n$x '#'  # two\na && b 'c  d'\n") == ["$x '#'", "a", "b 'c  d'"]


def test_the_error_of_the_readme_is_the_error(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^autoif\.yaml:\d+: .*$", README, re.MULTILINE)
    text = (ROOT / "autoif.yaml").read_text().replace("    field: score\n    value:", "    feild: score\n    value:")
    (tmp_path / "autoif.yaml").write_text(text.replace("sample_data/", f"{ROOT}/sample_data/"))
    done = subprocess.run(
        [sys.executable, "-m", "autoif_blocks", "check", "autoif.yaml"], cwd=tmp_path, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert shown in done.stderr.splitlines()


def test_every_recipe_is_listed() -> None:
    for path in (ROOT / "pipelines").glob("*.yaml"):
        assert f"pipelines/{path.name}" in README


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Those within the site are mkdocs' to check."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in targets if ":" not in link and not (ROOT / link).exists()] == []
