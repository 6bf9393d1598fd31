"""What makes two runs the same run: whatever shapes the records counts; where it is and how fast it goes does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Bench

from autoif_blocks.compare import ALL, NOTHING, compare
from autoif_blocks.errors import RecipeError
from autoif_blocks.identity import identity
from autoif_blocks.recipe import Recipe

ROWS = [{"query": "What is tea?", "n": 1}, {"query": "And bread?", "n": 3}]
STEPS = """
  - name: asked
    blocks:
      - {block: respond, field: a, prompt: one.jinja}
      - {block: respond, field: b, prompt: two.jinja}
      - {block: keep_where, field: n, value: '> 0'}
      - {block: keep_where, field: n, value: '< 9'}
      - {block: 'blocks_of_identity.py:Mine'}
  - {name: clean, block: decontaminate, fields: [query], against: ['evals/*.txt', more.txt]}
"""
FILES = {
    "one.jinja": "one {{ query }}", "two.jinja": "two {{ query }}", "evals/a.txt": "a b c d e", "more.txt": "f g h i j",
    "blocks_of_identity.py": "from autoif_blocks import Filter\nclass Mine(Filter):\n"
    "    def reject(self, record):\n        return None\n",
}  # fmt: skip


def recipe(bench: Bench) -> Recipe:
    for name, text in FILES.items():
        (bench.folder / name).parent.mkdir(exist_ok=True)
        if not (bench.folder / name).exists():
            (bench.folder / name).write_text(text)
    return Recipe.load(bench.recipe(STEPS, ROWS))


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


def swapped(one: str, other: str) -> Callable[[Path], object]:
    def swap(folder: Path) -> None:
        text = (folder / one).read_text()
        (folder / one).write_text((folder / other).read_text())
        (folder / other).write_text(text)

    return swap


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a block of one's own": (replaced("blocks_of_identity.py", "None", "'no'"), "steps.asked.blocks.blocks_of"),
    "a prompt's file": (replaced("one.jinja", "one", "1st"), "steps.asked.blocks.respond.prompt"),
    "two files for one another": (swapped("one.jinja", "two.jinja"), "steps.asked.blocks.respond (2).prompt"),
    "a listed file": (replaced("more.txt", "f", "k"), "steps.clean.against.2"),
    "a file that a pattern finds": (replaced("evals/a.txt", "a", "k"), "files that match"),
    "another that a pattern finds": (lambda f: (f / "evals" / "b.txt").write_text("k l m n o"), "files that match"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_makes_another_identity(edit: str, bench: Bench) -> None:
    change, place = EDITS[edit]
    was = identity(recipe(bench))
    change(bench.folder)
    now = identity(recipe(bench))
    changed = {key for key in {*was, *now} if was.get(key) != now.get(key)}
    assert any(key.startswith(place) for key in changed), changed


def test_results_of_an_edited_block_are_not_taken_for_the_same(bench: Bench) -> None:
    change, place = EDITS["a block of one's own"]
    assert recipe(bench).run()["records"] == 2
    change(bench.folder)
    with pytest.raises(RecipeError, match="holds the results of a different run") as refused:
        recipe(bench).run()
    assert place in str(refused.value)


def text_of(bench: Bench, old: str, new: str) -> Recipe:
    recipe(bench)
    path = bench.recipe(STEPS.replace(old, new), ROWS)
    return Recipe.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("'> 0'", "'> 1'"), ("'< 9'", "'< 8'"), ("field: a, prompt: one.jinja", "field: a, prompt: two.jinja")],
)
def test_of_two_blocks_of_one_name_both_count(old: str, new: str, bench: Bench) -> None:
    assert identity(recipe(bench)) != identity(text_of(bench, old, new))


def test_a_recipe_that_was_moved_is_the_same(bench: Bench, tmp_path: Path) -> None:
    before = recipe(bench)
    shutil.copytree(bench.folder, tmp_path / "moved")
    after = Recipe.load(tmp_path / "moved" / "recipe.yaml")
    assert identity(after) == identity(before)
    assert {(change.what, change.asks) for change in compare(before, after)} == {("same", NOTHING)}


@pytest.mark.parametrize(
    ("edit", "told", "asks"),
    [
        ("a block of one's own", "Mine: block: the file blocks_of_identity.py", NOTHING),
        ("a listed file", "against: ['the file more.txt", NOTHING),
        ("a file that a pattern finds", "against: ['the file a.txt", NOTHING),
        ("a prompt's file", "prompt: one {{ query }} -> 1st {{ query }}", ALL),
    ],
)
def test_diff_sees_what_files_hold(edit: str, told: str, asks: str, bench: Bench, tmp_path: Path) -> None:
    before = recipe(bench)
    shutil.copytree(bench.folder, tmp_path / "edited")
    EDITS[edit][0](tmp_path / "edited")
    changes = compare(before, Recipe.load(tmp_path / "edited" / "recipe.yaml"))
    (changed,) = [change for change in changes if change.told]
    assert any(told in line for line in changed.told), changed.told
    assert changed.asks == asks
