"""Compositions: what goes together, where it stands, in which turn, and that a reply must follow all of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, rows
from test_duplicates import function, instruction
from test_export import have, loaded

from autoif_blocks.blocks.conflicts import conflict
from autoif_blocks.blocks.constraints import PlaceConstraints, VerifyConstraints
from autoif_blocks.errors import DropRecord, RecipeError
from autoif_blocks.export import export
from autoif_blocks.lineage import Files
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import Record
from autoif_blocks.report.reading import Reading
from autoif_blocks.run import RunOptions
from autoif_blocks.sandbox import Outcome
from autoif_blocks.teacher.chance import Rates
from autoif_blocks.teacher.composed import constraints_of
from autoif_blocks.teacher.replies import complete

CLASHES = [
    ("Write at least 50 words.", "Use at most 30 words."),
    ("Write between 20 and 30 words.", "The answer should be 60 to 80 words long."),
    ("Answer in exactly three sentences.", "Write at least four sentences."),
    ("Give exactly two paragraphs.", "Write exactly three paragraphs."),
    ("Write at least 80 words.", "The answer must fit into 100 characters."),
    ("Write your whole answer in lower case.", "Write your whole answer in capital letters."),
    ("Do not use any capital letters.", "Start every word with a capital letter."),
    ("Do not use any lowercase letters.", "Use only lowercase letters in your answer."),
    ("Do not use the word 'thunder'.", 'Use the word "thunder" exactly three times.'),
    ("Use exactly two exclamation marks.", "Use exactly 4 exclamation marks."),
    ("The answer must contain exactly 3 hyphen bullets.", "Give a list of exactly 6 bullet points."),
    ('Start your answer with the word "Briefly".', 'The first word of the answer must be "Certainly".'),
    ('Finish with the word "cheers".', 'End your answer with the word "bye".'),
    ("Put the whole answer between <answer> and </answer>.", "Answer with a JSON object that has the key 'a'."),
    ("Wrap your entire answer in double quotation marks.", "Put your whole answer into one fenced code block."),
    ('The letter "b" is forbidden.', 'Use both the word "orchard" and the word "bridge".'),
]
FRIENDS = [
    ("Write at least 50 words.", "Use at most 80 words."),
    ("Write at least 50 words.", "Keep every sentence to 12 words or fewer."),
    ("Write at least 50 words.", "Put exactly two words in bold."),
    ("Write at least 10 words.", "The answer must fit into 100 characters."),
    ("Do not use any lowercase letters.", "Write at least three words in all capitals."),
    ("Start every word with a capital letter.", "Write your whole answer in capital letters."),
    ('Do not use the letter "z".', 'Use the word "river" at least once.'),
    ("Do not use the word 'thunder'.", 'Use the word "river" exactly three times.'),
    ('Start your answer with the word "Briefly".', 'End your answer with the word "bye".'),
    ("Start with a title in double angle brackets, such as <<Title>>.", 'Begin with the word "Well".'),
    ("Return valid JSON with the key 'a'.", "The whole answer must be JSON."),
    ("Put no fewer than 2 words in ALL CAPS.", "Write your whole answer in capital letters."),
    ('Use the word "river" no fewer than 3 times.', 'Use the word "river" at least once.'),
    ("Give exactly 4 steps.", "Use exactly two exclamation marks."),
    ("Be kind.", "Be brief."),
    ("写至少五十个字。", "不要超过二十个字。"),
]


@pytest.mark.parametrize("pair", CLASHES)
def test_words_tell_that_nobody_can_follow_both(pair: tuple[str, str]) -> None:
    assert conflict(*pair)
    assert conflict(*reversed(pair))
    assert not conflict(pair[0], pair[0])


@pytest.mark.parametrize("pair", FRIENDS)
def test_what_can_be_followed_together_is_left_alone(pair: tuple[str, str]) -> None:
    assert conflict(*pair) is None


TEXTS = [
    f"{a} {b} {c}." for a in ("red", "Red, hot") for b in ("tea", "tea! now", "bread") for c in ("no", "yes", "why?")
]
RULES = {
    "Mention it.": "'tea' in response",
    "No commas.": "',' not in response",
    "A comma.": "',' in response",
    "End so.": "response.endswith('yes.')",
    "Ask.": "'?' in response",
    "Tea, and more.": "'tea' in response and len(response) > 2",
}


def pool() -> list[dict[str, Any]]:
    """Each with all texts as cases."""
    given = []
    for text, rule in RULES.items():
        accepts = {case: bool(eval(rule, {"response": case})) for case in TEXTS}  # noqa: S307
        given.append(instruction(text, [rule], [c for c in TEXTS if accepts[c]], [c for c in TEXTS if not accepts[c]]))
    return given


COMPOSE = "  - {name: compositions, block: compose, sizes: [2], per_record: 20, chance: 0.05}\n"


def pairs(found: list[dict[str, Any]]) -> set[frozenset[str]]:
    return {frozenset(constraint["instruction"] for constraint in row["constraints"]) for row in found}


def test_functions_tell_what_goes_together(bench: Bench) -> None:
    """`No commas` and `A comma` share no text; `Tea, and more` accepts what `Mention it` does. `End so` and `Ask` share
    none either, but so few accept them that it may be chance: the witness is wanted only if one asks for it."""
    found = bench.run(COMPOSE, pool())
    every = set(map(frozenset, itertools.combinations(RULES, 2)))
    never = {frozenset(("No commas.", "A comma.")), frozenset(("Mention it.", "Tea, and more."))}
    assert pairs(found) <= every - never
    assert frozenset(("End so.", "Ask.")) in pairs(found)
    assert len(found) == len(pairs(found)), "equal compositions are made once"
    strict = bench.run(COMPOSE.replace("0.05", "0.05, witness: true"), pool(), overwrite=True)
    assert pairs(strict) <= every - never - {frozenset(("End so.", "Ask."))}
    loose = bench.run(COMPOSE.replace("0.05", "0"), pool(), overwrite=True)
    assert pairs(loose) >= never
    for row in found:
        assert row["instruction"] == " ".join(constraint["instruction"] for constraint in row["constraints"])
        assert all(constraint["functions"] for constraint in row["constraints"])
        given = {given["instruction"]: given["id"] for given in rows(bench.out / "given.jsonl")}
        assert sorted(row["made_from"]) == sorted(given[c["instruction"]] for c in row["constraints"])


@pytest.mark.heavy
def test_neither_order_nor_tasks_change_a_composition(bench: Bench) -> None:
    steps = COMPOSE.replace("[2]", "[2, 3]")
    first = bench.run(steps, pool())
    assert bench.run(steps, pool()[::-1], "executor: {tasks: 3}", overwrite=True) == first
    assert bench.run(steps, pool(), "seed: 7", overwrite=True) != first


def test_who_finds_no_partner_is_dropped_with_the_reason(bench: Bench) -> None:
    clash = [{**instruction(text, ["True"], ["a"], ["b"])} for text in CLASHES[0]]
    assert bench.run(COMPOSE, clash) == []
    assert {(row["reason"], row["detail"]) for row in bench.dropped("compositions")} == {
        ("no_partner", "passed over: {'conflict in words': 20}")
    }
    assert bench.discarded("compositions")[0]["reason"] == "too_few_partners"


def placed(query: str, placement: str, lines: tuple[str, ...] = ("A.", "B.", "C."), later: float = 0) -> list[str]:
    block = PlaceConstraints([placement], later, "Again:\n{{ constraints }}")  # type: ignore[list-item]
    constraints = [{"instruction": line, "functions": []} for line in lines]
    (record,) = block.handle(Record.new(query, query=query, constraints=constraints))
    assert [constraint["turn"] for constraint in record["constraints"]] == [0] * (len(lines) - 1) + [int(later)]
    return list(record["turns"])


@pytest.mark.parametrize(
    ("query", "placement", "turn"),
    [
        ("What is tea?", "before", "A.\nB.\nC.\nWhat is tea?"),
        ("What is tea?", "after", "What is tea?\nA.\nB.\nC."),
        ("What is tea?", "inside", "A.\nWhat is tea?\nB.\nC."),
        ("I like tea. What is it? Tell me.", "inside", "I like tea.\nA.\nB.\nC.\nWhat is it? Tell me."),
        ("我喜欢茶。茶是什么？", "inside", "我喜欢茶。\nA.\nB.\nC.\n茶是什么？"),
    ],
)
def test_constraints_stand_where_they_shall(query: str, placement: str, turn: str) -> None:
    assert placed(query, placement) == [turn]


def test_the_last_may_come_in_a_turn_of_its_own() -> None:
    assert placed("What is tea?", "after", later=1) == ["What is tea?\nA.\nB.", "Again:\nC."]
    block = PlaceConstraints(later=0.3)
    constraints = [{"instruction": line, "functions": []} for line in ("A.", "B.")]
    turns = [
        len(r["turns"]) for i in range(300) for r in block.handle(Record.new(i, query="q", constraints=constraints))
    ]
    assert 60 < turns.count(2) < 120
    (alone,) = block.handle(Record.new("x", query="q", constraints=constraints[:1]))
    assert len(alone["turns"]) == 1, "one constraint comes with the query"


TALK = """
  - {name: replies, block: converse, n: 2, prompt: "{{ turn }}"}
  - {name: verified, block: verify_constraints}
  - {name: chat, block: format_sft, format: messages, turns: true, keep: [pass_rates]}
"""


def talk(*turns: str, **rules: int) -> dict[str, Any]:
    constraints = [{"instruction": rule, "functions": [function(rule)] * 2, "turn": at} for rule, at in rules.items()]
    return {"turns": list(turns), "constraints": constraints}


def test_a_conversation_is_asked_turn_by_turn_and_each_reply_is_verified(bench: Bench) -> None:
    bench.model.answer = lambda prompt: {"one": "tea, please", "two": "tea"}[prompt]
    comma, tea = "',' not in response", "'tea' in response"
    given = [talk("one", "two", **{tea: 0, comma: 1}), talk("two", "one", **{comma: 1}), talk("one", **{tea: 0})]
    left = bench.run(TALK, given)
    sent = [[message["content"] for message in body["messages"]] for body in bench.model.bodies]
    assert ["one", "tea, please", "two"] in sent
    assert ["two", "tea", "one"] in sent
    for length in (1, 3):  # each sample goes its own way, in each turn
        assert len({body["seed"] for body in bench.model.bodies if len(body["messages"]) == length}) == 2
    chats = sorted([[turn["content"] for turn in row["messages"]] for row in left], key=len)
    assert chats == [["one", "tea, please"]] * 2 + [["one", "tea, please", "two", "tea"]] * 2
    dropped = bench.dropped("verified")
    assert {(row["reason"], row["detail"]) for row in dropped} == {
        ("never_followed", f"none of 2 samples follows all 1 constraints; the first: 1 of 1 not followed: {comma}")
    }
    assert dropped[0]["record"]["constraint_verdicts"] == [[[[False], [False]]]] * 2


@pytest.mark.parametrize("together", [True, False])
def test_a_prompt_that_nobody_follows_has_a_reason_of_its_own(bench: Bench, together: bool) -> None:
    """Of the same four answers two follow the first prompt. The second one's constraints exclude one another, which no
    single answer tells."""
    answers = {turn: iter(["tea", "tea, please", "bread", "tea!"]) for turn in ("one", "two")}
    bench.model.answer = lambda prompt: next(answers[prompt])
    tea, comma, no_comma = "'tea' in response", "',' in response", "',' not in response"
    options = f"together: {str(together).lower()}"
    steps = TALK.replace("n: 2", f"n: 4, {options}").replace("verify_constraints", f"verify_constraints, {options}")
    left = bench.run(steps, [talk("one", **{tea: 0, no_comma: 0}), talk("two", **{comma: 0, no_comma: 0})])
    assert sorted(row["messages"][1]["content"] for row in left) == ["tea", "tea!"]
    step, dropped = bench.step("verified"), bench.dropped("verified")
    assert step["in"] + step["created"] == step["out"] + len(dropped) == 2 + len(dropped)
    assert step["dropped"] == (
        {"failed_verification": 2, "never_followed": 1} if together else {"failed_verification": 6}
    )
    table = {row["label"]: (row["value"], row["share"]) for row in Reading(Files(bench.out)).table()}
    assert table["Responses that the functions accept"] == (2, None if together else 0.25)
    assert table.get("Prompts that a response follows") == ((1, 0.5) if together else None)
    assert table["Prompts that were answered, turn by turn" if together else "Responses, in total"][0] == step["in"]
    single = [row["record"] for row in dropped if row["reason"] == "failed_verification"]
    assert {"bread", "tea, please"} <= {record["response"] for record in single}
    assert all(record["constraint_verdicts"] and "samples" not in record for record in single)
    for row in dropped:
        if row["reason"] == "never_followed":
            assert row["detail"].startswith(
                "none of 4 samples follows all 2 constraints; the first: 1 of 2 not followed"
            )
            assert len(row["record"]["samples"]) == len(row["record"]["pass_rates"]) == 4


def test_functions_of_a_constraint_vote_with_their_weights(bench: Bench) -> None:
    """Compositions carry the weights, the verification and the ground truth for rewards heed them."""
    given = pool()
    for row in given:
        row["functions"], row["mutation_scores"] = [*row["functions"], function("False")], [0.9, 0.1]
    composed = bench.run(COMPOSE.replace("sizes: [2]", "sizes: [2], weights: mutation_scores"), given)
    assert all(each["function_weights"] == [0.9, 0.1] for row in composed for each in row["constraints"])
    rlvr = "{name: rlvr, block: format_rlvr, constraints: constraints, user: '{{ instruction }}', max_functions: 1}"
    steps = COMPOSE.replace("sizes: [2]", "sizes: [2], weights: mutation_scores") + f"  - {rlvr}\n"
    truths = [json.loads(row["ground_truth"]) for row in bench.run(steps, given, overwrite=True)]
    assert {tuple(each["function_weights"]) for truth in truths for each in truth} == {(0.9,)}


def weighed(*weights: float, rate: str = "> 0.5", most: int | None = None) -> str | float:
    """The pass rate of a constraint that the first of its functions accepts and the others do not, or why there is
    none."""
    constraint: dict[str, Any] = {"instruction": "Asked.", "functions": ["code"] * 3}
    record = Record.new(
        "x", samples=[["r"]], constraints=[constraint | ({"function_weights": [*weights]} if weights else {})]
    )
    block = VerifyConstraints(rate, most)
    runs = [YES, NO, NO][:most]
    try:
        (left,) = block.judge(record, runs)
    except (DropRecord, ValueError) as error:
        return getattr(error, "reason", str(error))
    return float(left["pass_rates"][0])


@pytest.mark.parametrize(
    ("weights", "options", "becomes"),
    [
        ((), {}, "never_followed"),
        ((), {"rate": "> 0.3"}, 0.3333),
        ((2, 1, 0), {}, 0.6667),
        ((1, 1, 0), {}, "never_followed"),
        ((1, 1, 0), {"rate": ">= 0.5"}, 0.5),
        ((0, 1, 1), {"rate": "> 0"}, "never_followed"),
        ((1, 9, 9), {"most": 1}, 1.0),
        ((0, 9, 9), {"most": 1}, "no_weight"),
        ((0, 0, 0), {}, "no_weight"),
        ((1, 2), {}, "function_weights has 2 values for 3 functions"),
        ((1, 2, -1), {}, "function_weights must be numbers from 0 to 1e9, got '-1'"),
        ((1, 2, float("nan")), {}, "function_weights must be numbers from 0 to 1e9, got 'nan'"),
    ],
)
def test_the_share_of_a_constraint_is_that_of_the_weight(
    weights: tuple[float, ...], options: dict[str, Any], becomes: str | float
) -> None:
    assert weighed(*weights, **options) == becomes


YES, NO, NOTHING = [Outcome.TRUE], [Outcome.FALSE], [Outcome.EXCEPTION]


@pytest.mark.parametrize(
    ("runs", "rate", "stays"),
    [
        ([YES, YES, NO], "> 0.5", True),
        ([YES, NO], "> 0.5", False),
        ([YES, NO], ">= 0.5", True),
        ([NOTHING], "> 0", False),
        ([], "> 0", False),
        ([[*YES, *YES], [*YES, *NO]], "> 0.5", False),  # in the second turn half do not accept
    ],
)
def test_each_constraint_needs_enough_functions(runs: list[list[Outcome]], rate: str, stays: bool) -> None:
    asked = {"instruction": "Asked.", "functions": ["code"] * len(runs)}
    turns = max(map(len, runs), default=1)
    fine = {"instruction": "Fine.", "functions": ["code"], "turn": turns - 1}
    record = Record.new("x", replies=["r"] * turns, constraints=[fine, asked])
    block = VerifyConstraints(rate, together=False)
    assert [len(inputs) for _, inputs in block.jobs(record)] == [1, *map(len, runs)]
    if stays:
        (left,) = block.judge(record, [YES, *runs])
        assert left["pass_rates"][0] == 1.0
    else:
        with pytest.raises(DropRecord, match="failed_verification"):
            block.judge(record, [YES, *runs])


def test_an_empty_reply_ends_its_conversation_alone(bench: Bench) -> None:
    bench.model.answer = lambda prompt: {"one": "tea", "two": "<think>hm</think>"}[prompt]
    left = bench.run(TALK, [talk("one", **{"True": 0}), talk("one", "two", **{"True": 0})])
    assert [len(row["messages"]) for row in left] == [2, 2]
    assert [row["reason"] for row in bench.dropped("replies")] == ["no_response"]
    assert [row["reason"] for row in bench.discarded("replies")] == ["empty_completion"] * 2


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{name: x, block: compose, sizes: [1, 2]}", "sizes must all be at least 2, got 1"),
        ("{name: x, block: compose, chance: 1.0}", "chance must be in [0, 1), got 1.0"),
        ("{name: x, block: compose, tries: 0}", "tries must be at least 1, got 0"),
        ("{name: x, block: compose, sizes: []}", "sizes must name at least one"),
        ("{name: x, block: place_constraints, placements: []}", "placements must name at least one"),
        ("{name: x, block: place_constraints, later_text: Again.}", "later_text must use {{ constraints }}"),
        ("{name: x, block: place_constraints, later_text: '{{ constraints }} {{ q }}'}", "and nothing else"),
        ("{name: x, block: verify_constraints, max_functions: 0}", "max_functions must be at least 1, or null for all"),
        ("{name: x, block: place_constraints, later: 2}", "later must be in [0, 1], got 2"),
        ("{name: x, block: place_constraints, placements: [above]}", "'before', 'after' or 'inside'"),
        ("{name: x, block: format_sft, format: alpaca, turns: true}", "turns do not fit into alpaca"),
    ],
)
def test_options_that_make_no_sense_are_told(bench: Bench, step: str, told: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:\d+: step 'x'") as error:
        Recipe.load(bench.recipe(f"  - {step}\n", [{"query": "q"}]))
    assert told in str(error.value)


PROMPT = 'Use the word "river" exactly 3 times.\nWhat is tea?\nDo not use any commas.\nWrite at least four sentences.'


def test_the_simulated_teacher_follows_several_constraints_more_often_than_not() -> None:
    assert list(constraints_of(PROMPT)) == [PROMPT.split("\n")[place] for place in (0, 2, 3)]
    replies = [complete(PROMPT, "simulated-teacher", seed, Rates(0, 0)) for seed in range(60)]
    good = [r for r in replies if r.lower().split().count("river") == 3 and "," not in r and r.count(".") >= 4]
    assert 15 < len(good) < 55
    assert replies == [complete(PROMPT, "simulated-teacher", seed, Rates(0, 0)) for seed in range(60)]


@pytest.mark.heavy
@pytest.mark.long
def test_the_recipe_s_chats_load_and_follow_all_their_constraints(tmp_path: Path) -> None:
    have("datasets", "pyarrow")
    path = Path(__file__).parents[1] / "pipelines" / "composed.yaml"
    recipe = Recipe.load(path, [f"output_dir={tmp_path / 'out'}", "steps.augment_instructions.self_instruct.n=12"])
    assert recipe.run(RunOptions())["records"] > 50
    verified = rows(tmp_path / "out" / "query_verification.jsonl")
    assert {len(row["turns"]) for row in verified} == {1, 2}
    assert {len(row["constraints"]) for row in verified} >= {2, 3, 4}
    assert all(min(row["pass_rates"]) > 0.5 for row in verified)
    export(tmp_path / "out", "messages", tmp_path / "set")
    assert {len(row["messages"]) for row in loaded(tmp_path / "set")["rows"]} == {2, 4}
