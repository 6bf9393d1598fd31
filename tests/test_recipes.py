"""Every shipped recipe is checked and run, and the two published variants say what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, rows

from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions

RECIPES = sorted((ROOT / "pipelines").glob("*.yaml"))
SMALL = {"self_instruct": "n", "join_queries": "per_record", "join_prompts": "per_record", "sample_responses": "n"}


def small(path: Path) -> list[str]:
    """Overrides with which a recipe has little to do."""
    steps = yaml.safe_load(path.read_text())["steps"]
    blocks = [(f"{step['name']}.{at}", each) for step in steps for at, each in enumerate(step.get("blocks", []), 1)]
    blocks += [(step["name"], step) for step in steps]
    return [
        f"steps.{place}.{SMALL[block['block']]}=3" for place, block in blocks if block.get("block") in SMALL
    ]  # fmt: skip


FAST = {"paper", "custom_block", "dpo", "strong"}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.heavy] * (path.stem not in FAST), id=path.stem) for path in RECIPES]
)
def test_every_shipped_recipe_runs(path: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(path, [*small(path), f"output_dir={tmp_path}"])
    result = recipe.run(RunOptions(limit=8))
    assert result["state"] == "completed"
    assert result["records"] > 0
    for step in result["steps"]:
        assert step["in"] + step["created"] == step["out"] + sum(step["dropped"].values())
        assert len(rows(tmp_path / step["file"])) == step["out"]
        assert len(rows(tmp_path / "dropped" / step["file"])) == sum(step["dropped"].values())


def test_there_are_recipes() -> None:
    assert {path.stem for path in RECIPES} >= {
        "paper", "classic", "no_back_translation", "filters_reordered", "custom_block", "datatrove_filter",
        "strong", "zh", "dpo", "dpo_online", "rlvr",
    }  # fmt: skip


def options(name: str) -> dict[str, dict[str, object]]:
    """The options of a recipe's blocks, by block."""
    recipe = Recipe.load(ROOT / "pipelines" / f"{name}.yaml")
    return {spec.title: spec.options for step in recipe.steps for spec in step.blocks}


def test_the_paper_variant_has_the_paper_s_thresholds() -> None:
    found = options("paper")
    assert found["cross_validate"] == {"case_agreement": "> 0.5", "function_accuracy": "> 0.5"}
    assert found["verify_responses"]["pass_rate"] == "> 0.5"
    assert found["keep_where"]["value"] == ">= 8"
    assert (found["join_queries"]["per_record"], found["respond"]["n"]) == (16, 8)


def test_the_classic_variant_has_the_scripts_thresholds() -> None:
    found = options("classic")
    assert found["cross_validate"] == {
        "min_functions": 3, "min_cases": 10, "case_agreement": "> 0", "function_accuracy": ">= 0.8",
    }  # fmt: skip
    assert found["verify_responses"]["pass_rate"] == "> 0"
    assert found["keep_where"]["value"] == "> 8"
    assert (found["join_queries"]["per_record"], found["respond"]["n"]) == (16, 4)


def test_the_ten_steps_have_their_files() -> None:
    recipe = Recipe.load(ROOT / "autoif.yaml")
    assert [step.file for step in recipe.steps] == [
        "augment_instructions.jsonl", "verification_funcs_cases.jsonl",
        "cross_validation.jsonl", "backtranslator.jsonl",
        "backtranslator_filter.jsonl", "sharegpt_query.jsonl", "query_verification.jsonl", "score_quality.jsonl",
        "score_filter.jsonl", "sft_data.jsonl",
    ]  # fmt: skip


def test_the_pipelines_ask_what_the_main_recipe_asks() -> None:
    """autoif.yaml holds its prompts, so that a newcomer sees them; the others share files. Both must say the same."""
    main = yaml.safe_load((ROOT / "autoif.yaml").read_text())
    asked = {block["prompt"] for step in main["steps"] for block in step.get("blocks", [step]) if "prompt" in block}
    more = {"repair.jinja"}  # of steps that the ten do not have
    files = (path for path in (ROOT / "pipelines" / "prompts").glob("*.jinja") if path.name not in more)
    assert asked == {path.read_text() for path in files}
