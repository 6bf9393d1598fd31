"""The documentation does what it says: every command, recipe and program in it, page by page, as a reader would."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
from documented import PAGES, ROOT, Prepared, Reader, commands, of

from autoif_blocks import cli
from autoif_blocks.blocks import BLOCKS
from autoif_blocks.errors import RecipeError
from autoif_blocks.models import ModelConfig
from autoif_blocks.options import options_of
from autoif_blocks.resolve import find_block

sys.path.insert(0, str(ROOT / "docs"))
import hooks  # mkdocs finds it there, too


@pytest.fixture
def reader(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("AUTOIF_BASE_URL", prepared.server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    return Reader(shutil.copytree(prepared.folder, tmp_path / "checkout"), prepared.server)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.heavy] * (page != PAGES[0]), id=page.stem) for page in PAGES]
)
def test_a_page_can_be_followed(page: Path, reader: Reader) -> None:
    translated = page.name == "README.zh-CN.md"
    known = {command for inside in of(PAGES[0], "sh") for command in commands(inside)} if translated else ()
    reader.follow(page, known=known)


@pytest.mark.heavy
@pytest.mark.parametrize("page", [page for page in PAGES if of(page, "yaml")], ids=lambda page: page.stem)
def test_the_recipes_of_a_page_run(page: Path, reader: Reader) -> None:
    """Each of its snippets, in the recipe of the checkout; clusters have tests of their own."""
    reader.follow(page, run=True)


def test_a_page_that_is_wrong_fails(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for inside in (
        "```sh\nautoif chek autoif.yaml\n```\n",
        "```sh\nfalse\n```\n",
        "```yaml\nbudgt: {requests: 1}\n```\n",
        "1. Do\n\n    ```yaml\n    - {name: more, block: dedupe}\n    ```\n",
        "```python\nfrom autoif_blocks import Nothing\n```\n",
    ):
        page.write_text(inside)
        with pytest.raises((AssertionError, RecipeError, ImportError)):
            reader.follow(page)


@pytest.mark.parametrize("name", hooks.MADE)
def test_what_pages_take_from_the_code(name: str) -> None:
    pages = [page.name for page in PAGES if f"<!-- made: {name} -->" in page.read_text(encoding="utf-8")]
    assert len(pages) == 1
    made = hooks.on_page_markdown(f"before\n\n<!-- made: {name} -->\n")
    assert made == f"before\n\n{hooks.MADE[name]()}\n"
    assert len(made) > 500


def test_a_mark_that_means_nothing_ends_the_build() -> None:
    with pytest.raises(KeyError, match="nothing"):
        hooks.on_page_markdown("<!-- made: nothing -->")


def test_the_reference_has_every_option_of_every_block() -> None:
    made = hooks.blocks()
    for name in BLOCKS:
        part = made.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert [option for option in options_of(find_block(name, ROOT)) if f"| `{option}` |" not in part] == []
    parts = hooks.parts()
    assert [field.name for field in fields(ModelConfig) if f"| `{field.name}` |" not in parts] == []
    assert all(f"### autoif {name}\n" in hooks.commands() for name in cli.cli.commands if name != "teacher")


def test_the_gallery_has_every_recipe() -> None:
    made = hooks.recipes()
    assert "Steps replaced by Python blocks from a file next to the recipe" in made
    for path in (ROOT / "autoif.yaml", *(ROOT / "pipelines").glob("*.yaml")):
        assert textwrap.indent(path.read_text(encoding="utf-8"), "    ", lambda line: bool(line.strip())) in made


@pytest.mark.heavy
@pytest.mark.long
def test_the_pictures_of_a_run_can_be_drawn_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "screens.py", tmp_path], check=True, timeout=300)
    for name in ("run-live.svg", "run-done.svg"):
        drawn = (tmp_path / name).read_text(encoding="utf-8")
        assert "10&#160;sft_data" in drawn
        assert "url(http" not in drawn
        assert (ROOT / "docs" / name).read_text(encoding="utf-8").startswith("<svg")
    assert "891&#160;records&#160;in&#160;output/sft_data.jsonl" in drawn
