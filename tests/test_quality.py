"""The blocks that look at the functions themselves: mutation scores, disagreements, repair, weighted votes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Bench
from test_blocks import ALWAYS, CRASHES, NEVER, NO_COMMA, NO_COMMA_HELPED, cases

from autoif_blocks.blocks.quality import MineDisagreements, MutationScore, Probed
from autoif_blocks.errors import DropRecord
from autoif_blocks.records import Record

PASSING = cases(("One two three.", True), ("Four five.", True), ("Six, seven.", False))


def probed(*verdicts: str) -> list[Probed]:
    """`"TTF"` for what each of three functions says: of a text, if it begins with `=`, else of a perturbation of it."""
    names = {"T": True, "F": False, "x": "exception"}
    return [
        Probed("" if line[0] == "=" else f"p{at}", f"text {at}", tuple(names[sign] for sign in line.lstrip("=")))
        for at, line in enumerate(verdicts)
    ]


@pytest.mark.parametrize(
    ("lines", "scores"),
    [
        (["=TTT", "FFT", "FFF", "TTT"], [1, 1, 0.5]),  # what all accept is harmless
        (["=TTT", "FTT"], [0, 0, 0]),  # who is alone with it has not noticed but misunderstood
        (["=TTT", "FTF"], [1, 0, 1]),
        (["=TTF", "FFT"], [1, 1, 0]),  # the third did not accept the text that was changed
        (["=FFF", "FFF"], [0, 0, 0]),
        (["=TTT", "FxF"], [1, 0, 1]),  # who crashes has noticed nothing
        (["=TTT", "FTF", "=TTT", "FFT"], [1, 0.5, 0.5]),
        (["=T", "F", "T"], [1]),  # nobody to compare with
        (["=T", "T"], [0]),
        (["=TT", "FT"], [0, 0]),  # one against one
    ],
)
def test_a_function_is_scored_by_what_the_others_notice(lines: list[str], scores: list[float]) -> None:
    record = Record.new("r", functions=[f"f{i}" for i in range(len(lines[0]) - 1)])
    (scored,) = MutationScore().weigh(record, probed(*lines))
    assert scored["mutation_scores"] == scores


def step(block: str, more: str = "") -> str:
    return f"\n  - {{name: looked, block: {block}{', ' + more if more else ''}}}\n"


SHORT = "def evaluate(response):\n    return len(response) < 60"


def test_functions_that_notice_nothing_are_left_out_with_what_belongs_to_them(bench: Bench) -> None:
    given = [
        {"functions": [NO_COMMA, ALWAYS, NO_COMMA_HELPED, CRASHES, NO_COMMA + "\n"], "cases": PASSING,
         "accuracies": [1.0, 0.7, 0.9, 0.1, 0.8], "case_verdicts": [[n] for n in range(5)], "n": 0},
        {"functions": [ALWAYS, ALWAYS + "\n"], "cases": PASSING, "accuracies": [1.0, 1.0], "case_verdicts": [], "n": 1},
    ]  # fmt: skip
    (left,) = bench.run(step("mutation_score", "min_score: 0.5"), given)
    assert left["functions"] == [NO_COMMA, NO_COMMA_HELPED, NO_COMMA + "\n"]
    assert (left["accuracies"], left["case_verdicts"]) == ([1.0, 0.9, 0.8], [[0], [2], [4]])
    assert left["mutation_scores"] == [1, 1, 1]
    left_out = {row["detail"].rpartition(": ")[2] for row in bench.discarded("looked")}
    assert {detail.partition("return ")[2] for detail in left_out} == {"True", "1 / 0"}
    (row,) = bench.dropped("looked")
    assert (row["reason"], row["record"]["mutation_scores"]) == ("functions_notice_nothing", [0, 0])


def test_without_a_threshold_all_stay_with_their_weights(bench: Bench) -> None:
    given = {"functions": [NO_COMMA, ALWAYS, NO_COMMA_HELPED], "cases": PASSING}
    (left,) = bench.run(step("mutation_score"), [given])
    assert (left["functions"], left["mutation_scores"]) == (given["functions"], [1, 0, 1])


def test_a_response_is_perturbed_in_place_of_the_cases(bench: Bench) -> None:
    given = {"functions": [NO_COMMA, ALWAYS], "response": "One, two."}
    (left,) = bench.run(step("mutation_score", "field: response"), [given])
    assert left["mutation_scores"] == [0, 0]  # no function but the one that always does accepts it
    (left,) = bench.run(
        step("mutation_score", "field: response, perturbations: [add_comma]"),
        [given | {"response": "One two."}],
        overwrite=True,
    )
    assert left["mutation_scores"] == [0, 0]  # one notices and one does not: nobody knows


def test_nothing_to_probe_is_a_reason(bench: Bench) -> None:
    given = [{"functions": [NO_COMMA], "cases": []}, {"functions": [], "cases": PASSING}]
    assert bench.run(step("mine_disagreements"), given) == []
    assert [row["reason"] for row in bench.dropped("looked")] == ["nothing_to_probe"] * 2


def test_the_largest_group_that_agrees_stays_and_what_divides_is_shown(bench: Bench) -> None:
    given = {"functions": [SHORT, NO_COMMA, NEVER, NO_COMMA_HELPED, NO_COMMA + "\n"], "cases": PASSING,
             "accuracies": [0.1, 0.2, 0.3, 0.4, 0.5]}  # fmt: skip
    (left,) = bench.run(step("mine_disagreements", "max_disputes: 2"), [given])
    assert left["functions"] == [NO_COMMA, NO_COMMA_HELPED, NO_COMMA + "\n"]
    assert (left["accuracies"], left["agreement"]) == ([0.2, 0.4, 0.5], 0.6)
    assert len(left["disputes"]) == 2
    for dispute in left["disputes"]:
        assert 0 < dispute["verdicts"].count(True) < 5
    assert sorted(row["reason"] for row in bench.discarded("looked")) == ["function_outvoted"] * 2


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, ""),
        ({"majority": ">= 0.5"}, "ad"),
        ({"majority": "> 0.2", "keep_functions": 3}, ""),
        ({"alike": 0}, "abcd"),
    ],
)
def test_too_small_a_group_drops_the_instruction(options: dict[str, Any], kept: str) -> None:
    block, record = MineDisagreements(**options), Record.new("r", functions=list("abcd"))
    found = probed("=TFxT", "FTTF", "=TTFT", "FTFF")
    if kept:
        (left,) = block.weigh(record, found)
        assert "".join(left["functions"]) == kept
    else:
        with pytest.raises(DropRecord, match="2 of 4 functions agree") as dropped:
            block.weigh(record, found)
        assert dropped.value.evidence["agreement"] == 0.5
        assert [row["verdicts"].count(True) for row in dropped.value.evidence["disputes"]] == [2, 2, 3, 1]


def test_of_equally_large_groups_the_one_that_agrees_more_stays() -> None:
    lines = ["=FFTT", "FFTT", "xFTT", "TTFF"]
    block = MineDisagreements(majority=0.5, alike=0.75)
    (left,) = block.weigh(Record.new("r", functions=list("abcd")), probed(*lines))
    assert left["functions"] == ["c", "d"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"perturbations": ["drop_wrd"]}, "drop_word.*got drop_wrd"), ({"perturbations": []}, "got none"),
        ({"max_texts": 0}, "at least 1"), ({"min_score": 1.1}, r"in \[0, 1\]"),
    ],
)  # fmt: skip
def test_senseless_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MutationScore(**options)


VOTE = "\n  - {name: verified, block: verify_responses, weights: mutation_scores}\n"


def test_functions_vote_with_their_weights(bench: Bench) -> None:
    votes = {"heavy": [1.0, 0.2, 0.2], "light": [0.5, 0.5, 0.5], "none": [0, 0, 0], "short": [1.0]}
    functions = [ALWAYS, NEVER, CRASHES]
    given = [{"n": n, "functions": functions, "mutation_scores": w, "response": "r"} for n, w in votes.items()]
    (left,) = bench.run(VOTE, given)
    assert (left["n"], left["pass_rate"]) == ("heavy", 0.7143)
    reasons = {row["record"]["n"]: (row["reason"], row["detail"]) for row in bench.dropped("verified")}
    assert reasons["light"] == ("failed_verification", "1 of 3 functions accept it (EXCEPTION)")
    assert reasons["none"][0] == "no_weight"
    assert reasons["short"] == ("error", "ValueError: mutation_scores has 1 values for 3 functions")


REPAIR = """
  - name: repaired
    block: repair_functions
    prompt: >-
      {{ instruction }}|{{ function }}|{% for f in failures %}{{ f.input }}={{ f.expected }}/{{ f.got }};{% endfor %}
    max_failures: 1
"""
TRUTH = cases(("a", True), ("b, c", False), ("d", True), ("e, f", False), ("mislabelled", False))
SEMICOLON = "def evaluate(response):\n    return ';' not in response"


ANSWERS: list[tuple[str | int, str]] = [
    (f"```python\n{NO_COMMA_HELPED}\n```", NO_COMMA_HELPED),
    (f"It looked for the wrong mark.\n{json.dumps({'func': NO_COMMA_HELPED})}", NO_COMMA_HELPED),
    (f"<think>def evaluate</think>{NO_COMMA_HELPED}", NO_COMMA_HELPED),
    (f"```python\n{NEVER}\n```", SEMICOLON),  # as many wrong as before
    (f"```python\n{CRASHES}\n```", SEMICOLON),
    ("```python\ndef check(response):\n    return True\n```", SEMICOLON),
    ("It is right.", SEMICOLON),
    ("", SEMICOLON),
    (400, SEMICOLON),  # refused: no reason to lose the instruction
]


def test_a_function_is_repaired_once_if_that_helps(bench: Bench) -> None:
    bench.model.answer = lambda prompt: ANSWERS[int(prompt.partition("|")[0])][0]
    functions = [NO_COMMA, SEMICOLON, NO_COMMA + "\n"]
    given = [{"instruction": f"{n}", "functions": functions, "cases": TRUTH} for n in range(len(ANSWERS))]
    left = bench.run(REPAIR, given)
    shown = f"|{SEMICOLON}|b, c=False/True;"
    assert sorted(bench.model.prompts) == [f"{n}{shown}" for n in range(len(ANSWERS))]
    discarded = [row["id"] for row in bench.discarded("repaired")]
    for row in left:
        becomes = ANSWERS[int(row["instruction"])][1]
        assert row["functions"] == [NO_COMMA, becomes, NO_COMMA + "\n"], row["instruction"]
        (repair,) = row["repairs"]
        assert (repair["function"], repair["answer"]) == (SEMICOLON, None if becomes == SEMICOLON else becomes)
        assert len(repair["failures"]) == 2
        assert discarded.count(row["id"]) == (becomes == SEMICOLON), row["instruction"]
    assert len(left) == len(ANSWERS)


def test_a_repair_that_another_function_equals_is_there_once(bench: Bench) -> None:
    bench.model.answer = lambda prompt: NO_COMMA
    given = {"instruction": "i", "functions": [NO_COMMA, SEMICOLON, NO_COMMA_HELPED], "cases": TRUTH}
    (left,) = bench.run(REPAIR, [given])
    assert left["functions"] == [NO_COMMA, NO_COMMA_HELPED]


def test_nothing_is_asked_where_nothing_fails(bench: Bench) -> None:
    given = [
        {"instruction": "i", "functions": [NO_COMMA, NO_COMMA_HELPED], "cases": TRUTH},
        {"instruction": "no case", "functions": [NO_COMMA], "cases": []},
        {"instruction": "no function", "functions": [], "cases": TRUTH},
    ]
    left = bench.run(REPAIR, given)
    assert sorted(row["instruction"] for row in left) == ["i", "no case", "no function"]
    assert bench.model.prompts == []
    assert all(row["repairs"] == [] for row in left)
