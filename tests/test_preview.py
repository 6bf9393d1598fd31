"""`autoif preview`: prompts, completions and what was made of them, record by record, in front of a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import AUTOIF, Bench, FakeModel

from autoif_blocks.errors import RecipeError
from autoif_blocks.preview import preview
from autoif_blocks.recipe import Recipe

NUMBERS = [{"number": i} for i in range(20)]
STEPS = """
  - {name: r, block: respond, n: 2, system: 'be brief', prompt: 'say {{ number }}'}
  - name: rated
    blocks:
      - {block: judge_score, reask: 1, prompt: 'rate {{ response }}'}
      - {block: keep_where, field: score, value: '> 5'}
"""


def test_each_record_has_its_questions_answers_and_what_came_of_them(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: f"<{prompt}>"
    recipe = Recipe.load(bench.recipe(STEPS, NUMBERS))
    passages = preview(recipe, "r", 3)
    assert len(passages) == 3
    assert len(model.prompts) == 3  # and no more
    for passage in passages:
        said = f"say {passage.record['number']}"
        (exchange,) = passage.exchanges
        assert [message["content"] for message in exchange.messages] == ["be brief", said]
        assert [completion.text for completion in exchange.completions] == [f"<{said}>"] * 2
        assert [made["response"] for made in passage.made] == [f"<{said}>"] * 2
        assert passage.lost == []
    preview(recipe, "r", 3)
    assert len(model.prompts) == 3  # what was paid for is kept
    recipe.run()
    said = [prompt for prompt in model.prompts if prompt.startswith("say")]
    assert len(said) == len(set(said)) == 20  # for the run, too


def test_what_is_lost_says_why(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: prompt if prompt.startswith("say") else "no idea" if "1" in prompt else "9"
    found = preview(Recipe.load(bench.recipe(STEPS.replace("n: 2", "n: 1"), NUMBERS)), "rated", 20)
    assert len(found) == 20
    for passage in found:
        # Another judge would have been asked once more: both questions are there.
        if "1" in str(passage.record["number"]):
            assert len(passage.exchanges) == 2
            assert passage.made == []
            assert [line.split(",")[0] for line in passage.lost] == ["left out by JudgeScore", "dropped by JudgeScore"]
        else:
            assert [made["score"] for made in passage.made] == [9.0]
    model.answer = lambda prompt: "2"
    bench.out = bench.folder / "other"
    low = preview(Recipe.load(bench.recipe(STEPS.replace("n: 2", "n: 1"), NUMBERS)), "rated", 2)
    assert ["dropped by KeepWhere, score_not_> 5"] in [[line.split(":")[0] for line in p.lost] for p in low]


def test_the_first_step_of_the_ten(tmp_path: Path) -> None:
    (passage,) = preview(Recipe.load(AUTOIF, [f"output_dir={tmp_path}"]), "1", 3)
    assert passage.record == {}
    assert len(passage.exchanges) == 12
    assert len(passage.made) == 122


def test_a_step_to_which_nothing_comes(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: "0"
    steps = STEPS + "  - {name: last, block: respond, field: x, prompt: 'more'}\n"
    with pytest.raises(RecipeError, match="no record comes to step 'last': try a larger -n"):
        preview(Recipe.load(bench.recipe(steps, NUMBERS)), "last", 2)
    with pytest.raises(RecipeError, match="there is no step 'lst'"):
        preview(Recipe.load(bench.recipe(steps, NUMBERS)), "lst", 2)


def test_what_is_printed(bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: f"\x1b[2Jred {prompt} " + "x" * 3000
    recipe = str(bench.recipe(STEPS, NUMBERS))
    done = subprocess.run(
        ["autoif", "preview", recipe, "--step", "r", "-n", "1"], capture_output=True, text=True, check=True
    )
    assert "asked" in done.stdout
    assert "say " in done.stdout
    assert "characters more)" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\\x1b[2Jred" in done.stdout
    whole = subprocess.run(
        ["autoif", "preview", recipe, "--step", "r", "-n", "1", "--full"], capture_output=True, text=True, check=True
    )
    assert "characters more)" not in whole.stdout
    wrong = subprocess.run(["autoif", "preview", recipe, "--step", "none"], capture_output=True, text=True)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
