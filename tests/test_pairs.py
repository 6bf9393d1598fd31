"""Preference pairs: what becomes of prompts, their responses and test cases; which pairs are made, and which never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Bench, rows, tree
from hypothesis import given
from hypothesis import strategies as st

from autoif_blocks.blocks.pairs import MakePairs
from autoif_blocks.errors import DropRecord, RecipeError
from autoif_blocks.lineage import Files
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import MADE_FROM, Record
from autoif_blocks.report.reading import Reading
from autoif_blocks.run import RunOptions

HAS_A = "def evaluate(response):\n    return 'a' in response"
SHORT = "def evaluate(response):\n    return len(response) < 9"
CRASHES = "def evaluate(response):\n    return 1 / 0"
NEVER = "def evaluate(response):\n    return False"
STEPS = """
  - {name: prompts, block: join_prompts, path: queries.jsonl, per_record: 2, keep: [instruction, functions]}
  - name: responses
    blocks:
      - {block: sample_responses, n: 4, prompt: "{{ query }}"}
      - {block: rate_responses}
  - {name: pairs, block: make_pairs, per_prompt: 2}
  - {name: dpo, block: format_dpo, keep: [level, chosen_pass_rate, rejected_pass_rate]}
"""
CASES = [{"input": text, "output": "a" in text} for text in ("an a", "two b", "b", "an a", "aa")]
GIVEN = [{"instruction": "Use an a.", "functions": [HAS_A, SHORT], "cases": CASES, "other": "heavy"}]


def answers(prompt: str) -> list[str]:
    return ["a", "no, none of it", "yes, it has one: a", "no, none  of it"]


@pytest.fixture
def ready(bench: Bench) -> Bench:
    (bench.folder / "queries.jsonl").write_text('{"query": "hello?"}\n{"query": "what?"}\n')
    bench.model.answer = answers
    return bench


def test_both_levels_of_pairs_from_prompts_to_records(ready: Bench) -> None:
    left = ready.run(STEPS, GIVEN)
    prompts = {row["query"]: row for row in rows(ready.out / "prompts.jsonl")}
    assert set(prompts) == {"", "hello?", "what?"}
    assert prompts[""]["responses"] == ["an a", "two b", "b", "aa"], "each case's input once"
    assert not {"cases", "other"} & set(prompts[""]), "what the records carry along is what `keep` says"
    assert sorted(ready.model.prompts) == ["hello?", "what?"], "nobody is asked for what is written already"
    rated = {row["query"]: row for row in rows(ready.out / "responses.jsonl")}
    assert rated["what?"]["pass_rates"] == [1.0, 0.0, 0.5, 0.0]
    assert rated["what?"]["response_verdicts"] == [[True, True], [False, False], [True, False], [False, False]]
    assert rated[""]["pass_rates"] == [1.0, 0.5, 0.5, 1.0]
    assert [row["record"]["query"] for row in ready.dropped("pairs")] == [""]
    assert ready.dropped("pairs")[0]["reason"] == "no_rejected"
    expected = [
        {
            "prompt": [{"role": "user", "content": f"{query}\nUse an a."}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "no, none of it"}],
            "metadata": {"level": "query", "chosen_pass_rate": 1.0, "rejected_pass_rate": 0.0},
        }
        for query in ("hello?", "what?")
    ]
    plain = [{name: value for name, value in row.items() if name != "id"} for row in left]
    assert sorted(plain, key=lambda row: row["prompt"][0]["content"]) == expected
    made = rows(ready.out / "pairs.jsonl")
    assert {row[MADE_FROM][-1] for row in made} == {rated["hello?"]["id"], rated["what?"]["id"]}
    assert not {"responses", "pass_rates", "response_verdicts"} & set(made[0])


def test_the_instruction_alone_is_a_prompt_of_its_test_cases(ready: Bench) -> None:
    left = ready.run(STEPS, [{**GIVEN[0], "functions": [HAS_A]}, {**GIVEN[0], "instruction": "Other.", "cases": []}])
    alone = [row for row in left if row["metadata"]["level"] == "instruction"]
    assert {row["prompt"][0]["content"] for row in alone} == {"Use an a."}
    found = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in alone}
    assert len(found) == 2
    assert found <= {(good, bad) for good in ("an a", "aa") for bad in ("two b", "b")}
    assert len({good for good, _ in found}) == len({bad for _, bad in found}) == 2, "what was used less comes first"
    table = {row["label"]: row["value"] for row in Reading(Files(ready.out)).table()}
    levels = {"instruction": len(alone), "query": len(left) - len(alone)}
    assert table["Pairs for DPO"] == len(left)
    assert {level: table[f"… of the {level} level"] for level in levels} == levels


@pytest.mark.parametrize(
    ("weights", "rates"),
    [
        (None, [0.5, 0.25, None]),
        ([1, 1, 1, 1], [0.5, 0.25, None]),
        ([0.7, 0.1, 0.1, 0.1], [0.8, 0.7, None]),
        ([0, 0, 1, 0], [0.0, 0.0, None]),
        ([0, 0, 0, 1], [None, None, None]),  # nothing that weighs came to a verdict
        ([0, 0, 0, 0], "no_weight"),
        ([1, 1], "error"),
    ],
)
def test_functions_rate_responses_by_their_weights(bench: Bench, weights: list[float] | None, rates: Any) -> None:
    functions = ["def evaluate(response):\n    return 1 / (len(response) > 1) and " + rule
                 for rule in ("'a' in response", "len(response) < 4", "False", "1 / 0")]  # fmt: skip
    given = {"functions": functions, "responses": ["a b", "a long one", "c"], "mutation_scores": weights}
    option = ", weights: mutation_scores" if weights else ""
    left = bench.run(f"  - {{name: rated, block: rate_responses{option}}}\n", [given])
    if isinstance(rates, str):
        assert [row["reason"] for row in bench.dropped("rated")] == [rates]
    else:
        assert [row["pass_rates"] for row in left] == [rates]


@pytest.mark.heavy
def test_neither_tasks_nor_order_change_a_byte(ready: Bench) -> None:
    (ready.folder / "queries.jsonl").write_text("".join(json.dumps({"query": f"q{n}"}) + "\n" for n in range(9)))
    given = [{**GIVEN[0], "instruction": f"Use an a, {n}.", "functions": [HAS_A]} for n in range(4)]
    ready.run(STEPS, given)
    once = tree(ready.out)
    ready.run(STEPS, given[::-1], "executor: {tasks: 3}", resume=False, overwrite=True)
    assert {name: data for name, data in tree(ready.out).items() if name != "given.jsonl"} == {
        name: data for name, data in once.items() if name != "given.jsonl"
    }


def test_the_seed_says_which_pairs_are_drawn(bench: Bench) -> None:
    given = [
        {"query": "q", "responses": list("abcdefgh"), "pass_rates": [1, 0] * 4, "instruction": str(n)} for n in range(9)
    ]
    steps = "\n  - {name: pairs, block: make_pairs, per_prompt: 1}\n"
    drawn = [bench.run(steps, given, f"seed: {seed}", overwrite=True) for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_verdict_that_no_function_gives_is_no_evidence(ready: Bench) -> None:
    """A response that every function crashes on is no bad response."""
    left = ready.run(STEPS, [{**GIVEN[0], "functions": [CRASHES]}])
    assert left == []
    dropped = ready.dropped("pairs")
    assert {row["reason"] for row in dropped} == {"neither_side"}
    assert all(set(row["record"]["pass_rates"]) == {None} for row in dropped)
    assert "pass rates of 4 responses are unknown: none is > 0.5 and == 0" in dropped[0]["detail"]


def test_a_prompt_without_both_sides_is_dropped_with_the_reason(ready: Bench) -> None:
    expected: dict[str, tuple[list[str], list[str]]] = {
        "no_function": ([], ["a"]), "no_response": ([HAS_A], ["", " ", "", ""]), "no_chosen": ([NEVER], ["a", "b"]),
        "no_rejected": ([HAS_A], ["a", "aa"]), "neither_side": ([HAS_A, NEVER], ["a", "aa"]),
    }  # fmt: skip
    ready.model.answer = lambda prompt: expected[prompt.split()[1]][1] * 4
    given = [{"instruction": name, "functions": functions, "cases": []} for name, (functions, _) in expected.items()]
    assert ready.run(STEPS.replace("{{ query }}", "{{ query }} {{ instruction }}"), given) == []
    dropped = [row for step in ("responses", "pairs") for row in ready.dropped(step)]
    assert sorted((row["record"]["instruction"], row["reason"]) for row in dropped) == sorted(
        (name, name) for name in expected for _ in range(2)
    )
    for step in ready.result["steps"]:
        assert step["in"] + step["created"] == step["out"] + sum(step["dropped"].values())


def first_of(rated: list[tuple[str, float | None]]) -> list[tuple[str, float]]:
    """Of responses that differ in white space only, the first that has a pass rate."""
    found: dict[str, tuple[str, float]] = {}
    for text, rate in rated:
        if rate is not None:
            found.setdefault(" ".join(text.split()), (text, rate))
    return [*found.values()]


TEXT = st.text(alphabet="ab \n\t", max_size=4)
RATED = st.lists(st.tuples(TEXT, st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0])), max_size=9)
BOUND = st.sampled_from(["> 0.5", ">= 0.5", "== 0", "<= 1", "> 0"])


@given(RATED, st.integers(1, 5), BOUND, BOUND)
def test_no_pair_is_equal_or_the_wrong_way_round(
    rated: list[tuple[str, float | None]], count: int, chosen: str, rejected: str
) -> None:
    block = MakePairs(chosen, rejected, count)
    record = Record.new("p", responses=[text for text, _ in rated], pass_rates=[rate for _, rate in rated], query="q")
    try:
        made = [*block.handle(record)]
    except DropRecord:  # which is told by the table above
        both = any(
            one.split() != other.split() and block.chosen.passes(high) and block.rejected.passes(low) and high > low
            for one, high in first_of(rated) for other, low in first_of(rated)
        )  # fmt: skip
        assert not both
        return
    assert 1 <= len(made) <= count
    for pair in made:
        assert pair["chosen"].split() != pair["rejected"].split()
        assert pair["chosen_pass_rate"] > pair["rejected_pass_rate"]
        assert block.chosen.passes(pair["chosen_pass_rate"])
        assert block.rejected.passes(pair["rejected_pass_rate"])
        assert (pair["chosen"], pair["chosen_pass_rate"]) in rated
    assert len({pair.id for pair in made}) == len(made)
    assert [pair.id for pair in block.handle(record)] == [pair.id for pair in made]


READ = "  - {name: rest, block: keep_length, field: instruction}\n"


def read_run(bench: Bench, *lines: str) -> Path:
    (bench.folder / "step.jsonl").write_text("".join(line + "\n" for line in lines))
    path = bench.recipe(READ, [])
    given = "block: read_run, path: step.jsonl, fields: [instruction]"
    path.write_text(path.read_text().replace("block: read_jsonl, path: in.jsonl, fields: []", given))
    return path


def test_a_run_s_records_are_read_with_their_ids(bench: Bench) -> None:
    row = {"id": "x1", "instruction": "i", MADE_FROM: ["x0"], "functions": ["f"]}
    Recipe.load(read_run(bench, json.dumps(row))).run()
    assert rows(bench.out / "rest.jsonl") == [{"id": "x1", "instruction": "i", MADE_FROM: ["x0"]}]


@pytest.mark.parametrize(
    ("line", "told"),
    [('{"instruction": "i"}', "step.jsonl:2: a record needs an 'id'; name a step's file of a run"),
     ('{"id": "x"}', "step.jsonl:2: no 'instruction'; the record has nothing"), ("[]", "step.jsonl:2: a JSON object"),
     ("{", "step.jsonl:2: not JSON")],
)  # fmt: skip
def test_what_is_no_step_s_file_is_told_before_the_run(bench: Bench, line: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.load(read_run(bench, '{"id": "x", "instruction": "i"}', line))
    assert told in str(error.value)


@pytest.mark.heavy
def test_a_policy_is_trained_on_an_earlier_run_s_instructions(bench: Bench) -> None:
    """Online: what `dpo.yaml` has verified, answered by the model in training alone."""
    small = ["steps.augment_instructions.self_instruct.n=1", "steps.prompts.per_record=2"]
    offline = Recipe.load(ROOT / "pipelines" / "dpo.yaml", [*small, f"output_dir={bench.folder / 'offline'}"])
    offline.run(RunOptions(limit=6, end_step="backtranslator_filter"))
    verified = bench.folder / "offline" / "backtranslator_filter.jsonl"
    bench.model.answer = lambda prompt: ["One. Two. Three. Four.", "no", "so " * 90, "yes 1, 2"] * 2
    online: dict[str, Any] = Recipe.load(
        ROOT / "pipelines" / "dpo_online.yaml",
        [f"steps.instructions.path={verified}", "steps.prompts.per_record=3", f"output_dir={bench.out}",
         f"models.policy.base_url={bench.model.url}", "models.policy.model=policy-step-100"],
    ).run()  # fmt: skip
    kept = {row["id"]: row["instruction"] for row in rows(verified)}
    assert {row["id"]: row["instruction"] for row in rows(bench.out / "instructions.jsonl")} == kept
    assert {body["model"] for body in bench.model.bodies} == {"policy-step-100"}
    assert len(bench.model.prompts) == 3 * len(kept) == online["steps"][1]["out"]
    assert online["records"] > 0
