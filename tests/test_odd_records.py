"""Records from files that anybody may have written: each that a block can do nothing with is dropped by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Bench
from test_blocks import ALWAYS, NO_COMMA, cases

from autoif_blocks.blocks.functions import only_functions
from autoif_blocks.errors import RecipeError
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import Record

CASES = cases(("One two.", True), ("Three four five.", True), ("Six, seven.", False))
GOOD: dict[str, Any] = {
    "name": "good", "instruction": "No commas.", "functions": [NO_COMMA, NO_COMMA + "\n"], "cases": CASES,
    "query": "What is tea?", "responses": ["Tea.", "Tea, then."], "translations": ["Avoid the comma."],
}  # fmt: skip
# What stands in the place of each field.
ODD: dict[str, Any] = {
    "functions": [None, ALWAYS, [7], {"a": ALWAYS}],
    "cases": [
        None,
        "a case",
        [{"in": "x"}],
        [{"input": 7, "output": True}],
        [{"input": "x", "output": "perhaps"}],
        [3],
    ],
    "responses": [None, "one text", [None], {"0": "x"}],
    "translations": [None, "one text"],
    "instruction": [None, 7, ["No commas."]],
}


def odd(*fields: str, of: str = "") -> list[dict[str, Any]]:
    """One that is as it should be, and one with each odd value."""
    made = [{**GOOD, "name": f"{field} {at}", field: value} for field in fields for at, value in enumerate(ODD[field])]
    return [{**record, "of": of} for record in (GOOD, *made)]


BLOCKS: dict[str, tuple[str, ...]] = {
    "cross_validate": ("functions", "cases"),
    "verify_responses, field: query": ("functions",),
    "rate_responses": ("functions", "responses"),
    "mutation_score": ("functions", "cases"),
    "mine_disagreements": ("functions", "cases"),
    "back_translate, prompt: '{{ function }}'": ("functions",),
    "judge_label, over: translations, labels: [ok, bad], prompt: '{{ item }}'": ("translations",),
    "repair_functions, prompt: '{{ function }}'": ("functions", "cases"),
    "dedup_functions": ("functions", "cases"),
    "format_rlvr, keep: [of]": ("functions", "instruction"),
}


def test_one_record_is_dropped_and_not_the_run(bench: Bench) -> None:
    """Each block gets odd records of its own. Nobody is asked about what they hold: of a text in the place of a list
    each character would be paid for."""
    bench.model.answer = lambda prompt: "ok"
    steps = ""
    for n, fields in enumerate(BLOCKS.values()):
        rows = odd(*fields, of=f"s{n}")
        (bench.folder / f"{n}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for n, block in enumerate(BLOCKS):
        steps += f"  - {{name: r{n}, block: read_jsonl, path: {n}.jsonl, fields: {json.dumps([*GOOD, 'of'])}}}\n"
        steps += f"  - {{name: s{n}, block: {block}}}\n"
    left = bench.run(steps, [{**GOOD, "of": "first"}])
    assert left
    for n, (block, fields) in enumerate(BLOCKS.items()):
        dropped = {row["record"]["name"] for row in bench.dropped(f"s{n}") if row["record"].get("of") == f"s{n}"}
        expected = {row["name"] for row in odd(*fields)} - {"good"}
        assert dropped - {"good"} == expected, block
    assert all(len(prompt) > 2 for prompt in bench.model.prompts)


def test_what_cannot_be_composed_is_dropped_by_itself(bench: Bench) -> None:
    other = {**GOOD, "name": "other", "instruction": "Be kind.", "functions": [ALWAYS]}
    empty = {**GOOD, "name": "empty", "instruction": "Be brief.", "functions": []}
    given = [*odd("functions", "cases", "instruction"), other, empty]
    (left,) = bench.run("  - {name: x, block: compose, sizes: [2]}\n", given)
    assert {constraint["instruction"] for constraint in left["constraints"]} == {"No commas.", "Be kind."}
    reasons = {row["record"]["name"]: row["reason"] for row in bench.dropped("x")}
    assert reasons.pop("empty") == "no_function"
    assert sorted(reasons.pop(name, "") for name in ("good", "other")) == ["", "composed_already"]
    assert {*reasons.values()} == {"error"}


def test_many_odd_records_among_good_ones_do_not_stop_a_comparison(bench: Bench) -> None:
    given = [
        {**GOOD, "name": f"{n}", "instruction": f"{n}", "functions": None if n % 2 else [NO_COMMA]} for n in range(60)
    ]
    left = bench.run("  - {name: x, block: dedup_functions, evidence: 1}\n", given)
    assert len(left) == 1
    assert bench.step("x")["dropped"] == {"error": 30, "same_behaviour": 29}


def test_outputs_of_cases_are_read_as_leniently_as_a_model_s(bench: Bench) -> None:
    told = [{**case, "output": "true" if case["output"] else "no"} for case in CASES]
    (left,) = bench.run("  - {name: x, block: cross_validate}\n", [{**GOOD, "cases": told}])
    assert [case["output"] for case in left["cases"]] == [True, True, False]


@pytest.mark.parametrize("most", [0, -1])
@pytest.mark.parametrize("block", ["verify_responses", "rate_responses", "verify_constraints", "format_rlvr"])
def test_no_functions_at_all_cannot_be_asked_for(bench: Bench, block: str, most: int) -> None:
    with pytest.raises(RecipeError, match=r"max_functions must be at least 1, or null for all, got -?\d"):
        Recipe.load(bench.recipe(f"  - {{name: x, block: {block}, max_functions: {most}}}\n", [GOOD]))


def test_what_belongs_to_functions_follows_them_in_their_order() -> None:
    record = Record.new(
        "r", functions=["a", "b", "c"], accuracies=[1, 2, 3], mutation_scores=[4, 5, 6], case_verdicts=[7]
    )
    left = only_functions(record, [2, 0])
    assert (left["functions"], left["accuracies"], left["mutation_scores"]) == (["c", "a"], [3, 1], [6, 4])
    assert left["case_verdicts"] == [7], "what has another length belongs to something else"


def test_cross_validation_leaves_scores_beside_their_functions(bench: Bench) -> None:
    given = {**GOOD, "functions": [ALWAYS, NO_COMMA], "mutation_scores": [0.1, 0.9]}
    steps = "  - {name: x, block: cross_validate, case_agreement: '>= 0.5'}\n"
    (left,) = bench.run(steps, [given])
    assert (left["functions"], left["mutation_scores"]) == ([NO_COMMA, ALWAYS], [0.9, 0.1])


def test_what_was_known_of_functions_does_not_outlive_their_repair(bench: Bench) -> None:
    bench.model.answer = lambda prompt: NO_COMMA
    wrong = "def evaluate(response):\n    return ';' not in response"
    given = {**GOOD, "functions": [NO_COMMA, wrong, NO_COMMA + "\n"], "mutation_scores": [0.9, 0.1, 0.9]}
    repair = "  - {name: repaired, block: repair_functions, prompt: '{{ function }}'}\n"
    (left,) = bench.run(repair, [given])
    assert left["functions"] == [NO_COMMA, NO_COMMA + "\n"]
    assert "mutation_scores" not in left
    vote = "  - {name: x, block: verify_responses, field: query, weights: mutation_scores}\n"
    with pytest.raises(RecipeError, match="step 'repaired' does not pass it on"):
        Recipe.load(bench.recipe(repair + vote, [given]))
