"""What models write: tables of realistic answers, then anything at all."""

from __future__ import annotations

import json
import math
import textwrap
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoif_blocks.parsing import (
    compiles,
    find_code,
    find_json,
    find_label,
    find_lines,
    find_number,
    find_object,
    repair_code,
    strip_reasoning,
    to_bool,
    unwrap,
)

# Reasoning


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("8", "8"),
        ("<think>8? no</think>9", "9"),
        ("\n<think>\n8?\n</think>\n\n9\n", "9"),
        ("<Think>a</THINK> b", "b"),
        ("<thinking>a</thinking><reasoning>b</reasoning> c", "c"),
        ("[THINK]a[/THINK]b", "b"),
        ("<think></think>", ""),
        ("<think>never closed", ""),
        ("<think>a <think> b</think> c", "c"),
        ("the prompt held the opening tag</think>\n9", "9"),
        ("a</think>Write `</think>` to end it.", "Write `</think>` to end it."),
        (
            "Put your thoughts into <think>…</think>, then answer.",
            "Put your thoughts into <think>…</think>, then answer.",
        ),
        ("<b>bold</b> <thinker>", "<b>bold</b> <thinker>"),
    ],
)
def test_reasoning_is_cut_off(text: str, answer: str) -> None:
    assert strip_reasoning(text) == answer


# JSON

FUNC = "def evaluate(response):\n    return 'a' in response"
ANSWER = {"func": FUNC, "cases": [{"input": 'say "x"', "output": True}]}
BARE = json.dumps(ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        BARE,
        json.dumps(ANSWER, indent=2),
        f"```json\n{BARE}\n```",
        f"```\n{BARE}\n```",
        f"```JSON\n{BARE}```",
        f"~~~json\n{BARE}\n~~~",
        f"```json\n{BARE}",
        f"Here it is:\n\n```json\n{BARE}\n```\n\nI hope it helps {{really}}!",
        f"Sure! The set {{1, 2}} and [x] aside: {BARE} That is all.",
        f"<think>maybe {{}} or [1]</think>{BARE}",
        f"```python\n{FUNC}\n```\nand as JSON\n```json\n{BARE}\n```",
        f'```json\n{{"example": [1]}}\n```\nNow the real one:\n```json\n{BARE}\n```',
        f'{{"note": "first"}}\n{BARE}',
        f"[{BARE}]",
        f'[{{"other": 1}}, {BARE}]',
        f"```json\n[\n{BARE}\n]\n```",
        BARE.replace("\\n", "\n"),  # raw line breaks in the string
        BARE[:-1] + ",}",
        repr(ANSWER),
        f"```python\n{ANSWER!r}\n```",
        f"The answer is {ANSWER!r}.",
        repr(ANSWER).replace("True", "true"),
        "\ufeff" + BARE,
        BARE.replace("{", "{ ").replace(",", "\t,\r\n"),
    ],
)
def test_an_object_is_found_wherever_it_stands(text: str) -> None:
    found = find_object(text, "func", "cases")
    assert found is not None
    assert found["cases"] == ANSWER["cases"]
    assert found["func"] == FUNC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "{}",
        "[]",
        '{"func": "cut of',
        "func: x",
        "{'func': open('x')}",
        '{"fun": 1}',
        "null",
        '"func"',
        "{func}",
    ],
)
def test_no_object_is_none(text: str) -> None:
    assert find_object(text, "func") is None


def test_pitfall_8_one_misshapen_answer_of_eight_is_one() -> None:
    answers = [BARE, "{broken", *[BARE] * 6]
    assert [find_object(answer, "func") is None for answer in answers].count(True) == 1


def test_a_fence_within_a_string_does_not_end_the_answer() -> None:
    answer = {"func": "def evaluate(response):\n    return '```' in response"}
    assert find_object(f"```json\n{json.dumps(answer)}\n```", "func") == answer
    assert find_object(f"```json\n{json.dumps(answer, indent=1)}\n```", "func") == answer


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5_000])
def test_numbers_that_no_file_can_hold_are_not_let_through(number: str) -> None:
    for value in find_json(f'{{"a": {number}, "b": [1.5]}}'):
        json.dumps(value, allow_nan=False)


def test_lone_surrogates_are_replaced_as_in_files() -> None:
    assert find_object('{"a": "x\\ud800y \\ud83d\\ude00"}', "a") == {"a": "x?y 😀"}


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_json_amid_prose_comes_back_as_it_was(value: Any) -> None:
    wanted = {"answer": value, "list": [value]}
    for text in (json.dumps(wanted), f"Well: {json.dumps(wanted)}.", f"```json\n{json.dumps(wanted, indent=1)}\n```"):
        assert find_object(text, "answer") == json.loads(
            json.dumps(wanted, ensure_ascii=False).encode("utf-8", "replace")
        )


# Code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("Sure:\n```py\nx = 1\n```\nDone", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("```\na\n```\n```python\nlonger\n```", "longer"),
        ("```python\nx = '```' in y\nz = 2\n```", "x = '```' in y\nz = 2"),
        ("<think>```python\nno\n```</think>```python\nyes\n```", "yes"),
        ("Use ``` for fences", "Use ``` for fences"),
    ],
)
def test_code_is_found(text: str, code: str) -> None:
    assert find_code(text) == code


SOUND = [
    "def evaluate(response):\n    return response.count('\\n') == 2",  # pitfall 7: a literal \n
    "import re\ndef evaluate(response):\n    return bool(re.search('\\d+\\n', response))",
    "def evaluate(response):\n    return '```' in response",
    "def evaluate(response): return response is 'x'",
    "x = '\\t'",
]


@pytest.mark.parametrize("code", SOUND)
def test_pitfall_7_sound_code_is_left_alone(code: str) -> None:
    assert repair_code(code) == code
    assert repair_code(json.loads(json.dumps({"func": code}))["func"]) == code


@pytest.mark.parametrize("code", SOUND)
def test_code_that_was_escaped_twice_fenced_or_indented_is_repaired(code: str) -> None:
    escaped = json.dumps(code)[1:-1]
    for broken in (
        escaped,
        f"```python\n{code}\n```",
        f"```python\\n{escaped}\\n```",
        textwrap.indent(code, "  "),
    ):
        repaired = repair_code(broken)
        assert repaired is not None
        assert compiles(repaired)
    if "\n" in code:
        assert repair_code(escaped) == code


@pytest.mark.parametrize("code", ["def f(:", "", "   ", "\ud800", "a\0b", "x = " + "9" * 5_000, '", {}, "'])
def test_what_is_not_code_stays_so(code: str) -> None:
    assert repair_code(code) in (None, code)
    assert (repair_code(code) == code) == compiles(code)


def test_a_warning_is_not_an_error_and_not_shown() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compiles("x = '\\d'\nassert (1, 'always true')")
    assert caught == []


# Lines


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a\nb", ["a", "b"]),
        ("- a\n- b", ["a", "b"]),
        ("1. a\n2) b\n(3) c\n[4] d\n5: e", ["a", "b", "c", "d", "e"]),
        ("1.Write\n2.Use", ["Write", "Use"]),
        ("1、写\n2、用", ["写", "用"]),
        ("• a\n– b\n* c\n+ d", ["a", "b", "c", "d"]),
        ("Here are three:\n\n- a\n- b\n\nEnjoy!", ["a", "b"]),
        ('- **a**\n- *b*\n- "c"\n- “d”', ["a", "b", "c", "d"]),
        ("<think>- no</think>- yes", ["yes"]),
        ("```\na\nb\n```", ["a", "b"]),
        ("a\n---\n***\nb", ["a", "b"]),
        ('- End with "thank you"', ['End with "thank you"']),
        ('- "Yes" and "no" must appear', ['"Yes" and "no" must appear']),
        ("- Use **bold** and end with **stop**", ["Use **bold** and end with **stop**"]),
        ("- **Length:** at most ten words", ["**Length:** at most ten words"]),
        ("1.5 million words", ["1.5 million words"]),
        ("-5 degrees\n3 words", ["-5 degrees", "3 words"]),
        ("2024 was a year", ["2024 was a year"]),
        ("a\r\n- b\r\n", ["b"]),
    ],
)
def test_lines_lose_their_dressing_and_nothing_else(text: str, items: list[str]) -> None:
    assert find_lines(text) == items


@pytest.mark.parametrize("text", ["", "- ", "- \n-\n*  \n1. \n", "\n\n", "-", "```", "- ** **", '- ""'])
def test_pitfall_11_a_blank_item_is_none(text: str) -> None:
    assert find_lines(text) == []


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('"a"', "a"),
        (' **"a"** ', "a"),
        ('"a" b', '"a" b'),
        ('"a" or "b"', '"a" or "b"'),
        ('"', '"'),
        ('""', '""'),
        ("", ""),
    ],
)
def test_only_what_stands_around_the_whole_is_unwrapped(text: str, inner: str) -> None:
    assert unwrap(text) == inner


# Numbers


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("8", 8), ("8.5", 8.5), ("8,5", 8.5), (" 8 \n", 8), ("0", 0), ("10", 10),
        ("Score: 8", 8), ("score=8", 8), ("Score : 8", 8), ("**Score:** 8", 8), ("**Score**: 8", 8), ("Score:\n8", 8),
        ("Score:\n\n**8**\n\nIt uses 3 words.", 8), ("Score: [8]", 8), ("Score：8", 8),
        ('{"score": 8, "why": "2 of 3"}', 8),
        ("Rating - 8", 8), ("The score is 8", 8), ("I would rate it 7.", 7), ("I give it 7.5 out of 10", 7.5),
        ("8/10", 8), ("8 / 10", 8), ("10/10", 10), ("**9**/10", 9), ("I would give this an 8 out of 10.", 8),
        ("Score (0-10): 7", 7), ("Score (0 - 10): 7", 7), ("Score (1 to 10): 7", 7), ("Score out of 10: 7", 7),
        ("On a scale of 1 to 10, I rate it 8.", 8), ("Score: 7 (the maximum score is 10)", 7),
        ("Score: 8 - 3 examples are missing", 8), ("It has 3 flaws.\n\nScore: 6", 6), ("Score: 5? No.\nScore: 6", 6),
        ("<think>Score: 2</think>Score: 9", 9), ("In 2024 there were 12 of them, so 4", 4),
        ("eight out of 10", None), ("Score: 85", None), ("Score: 11/10", None), ("-3", None), ("Score: -1", None),
        ("90%", None), ("v2.1", None), ("8th", None), ("Score: high", None), ("", None), ("N/A", None), ("2-3", None),
        ("1" * 5_000, None), ("Score: 1e5", None),
    ],
)  # fmt: skip
def test_scores_are_read(text: str, score: float | None) -> None:
    assert find_number(text, 0, 10) == score


@pytest.mark.parametrize("text", ["Score: 8/10", "**Score: 9**", "Score: 9."])
def test_pitfall_9_dressed_scores_are_scores(text: str) -> None:
    assert find_number(text, 0, 10) in (8, 9)


# Labels

LABELS = ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("entailment", "entailment"), ("Entailment.", "entailment"), ("**NEUTRAL**", "neutral"),
        ("The answer is contradiction", "contradiction"), ('{"label": "neutral"}', "neutral"),
        ("neutral\n\nIt is not entailment, since …", "neutral"),
        ("Is it entailment or contradiction? No.\nneutral", "neutral"),
        ("<think>entailment?</think>neutral", "neutral"), ("Neutral, not a contradiction.", "neutral"),
        ("This is not a contradiction.", None), ("non-neutral", None), ("There is no contradiction.", None),
        ("entailment or neutral", None), ("entailments", None), ("", None), ("I cannot tell.", None),
        ("entailment\nneutral\ncontradiction", "entailment"),
    ],
)  # fmt: skip
def test_labels_are_read(text: str, label: str | None) -> None:
    assert find_label(text, LABELS) == label


def test_labels_of_several_words_and_signs_are_read() -> None:
    assert find_label("I think it is Not Helpful (at all)", ["very helpful", "not helpful"]) == "not helpful"
    assert find_label("A+", ["A+", "B"]) == "A+"


# Booleans


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (True, True), (False, False), ("true", True), ("True", True), (" TRUE. ", True), ("'false'", False), (1, True),
        (0, False), (1.0, True), ("yes", True), ("No", False), ("pass", True), ("failed", False), ("1", True),
        ("", None), ("maybe", None), (2, None), (None, None), ([], None), ([True], None), ({}, None), ("truely", None),
        (math.nan, None), (math.inf, None), (10**400, None),
    ],
)  # fmt: skip
def test_pitfall_16_booleans_come_in_many_forms(value: object, verdict: bool | None) -> None:
    assert to_bool(value) is verdict


# Anything at all

READERS: dict[str, Callable[[str], Any]] = {
    "strip_reasoning": strip_reasoning,
    "find_json": lambda text: list(find_json(text)),
    "find_object": lambda text: find_object(text, "func"),
    "find_code": find_code,
    "repair_code": repair_code,
    "find_lines": find_lines,
    "find_number": lambda text: find_number(text, 0, 10),
    "find_label": lambda text: find_label(text, LABELS),
    "to_bool": to_bool,
}
PIECES = st.sampled_from(
    ["<think>", "</think>", "```", "```json\n", "\n", "{", "}", "[", "]", '"', "'", ":", ",", "\\", "\\n", "\\ud800",
     "1", "e9", ".", "-", "Score", "/10", "out of", "func", "def f(", "return", "neutral", "not ", "* ", "**", "true",
     "\ud800", "\0", "\u2028", "é"]
)  # fmt: skip


@given(st.text() | st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
@example('["", {}, ""]')
@example('", {}, "')
def test_no_text_raises(text: str) -> None:
    for reader in READERS.values():
        reader(text)
    for value in find_json(text):
        json.dumps(value, allow_nan=False).encode()
    assert all(find_lines(text))
    assert (score := find_number(text, 0, 10)) is None or 0 <= score <= 10


HOSTILE = {
    "brackets": "[" * 100_000,
    "braces": "{" * 100_000,
    "objects": '{"a":' * 50_000,
    "closed deep": '{"a":[' * 50_000 + "]}" * 50_000,
    "python objects": "{'a':" * 10_000,
    "signs": "{" + "-" * 40_000 + "1}",
    "attributes": "{a" + ".a" * 20_000 + "}",
    "nested list": "[" * 200 + "1," * 100_000,
    "strings": '["' * 50_000,
    "digits": "1" * 100_000,
    "digits and a letter": "1" * 100_000 + "x",
    "digits after score": "Score " + "1" * 100_000 + "x",
    "digits and slashes": "1/" * 50_000,
    "dots": "1.1" * 40_000,
    "scores": "Score:" * 20_000,
    "score and spaces": "Score:" + " " * 100_000,
    "number and spaces": ("1" + " " * 300) * 300,
    "fences": "```json\n" * 20_000,
    "fence and spaces": "```" + " " * 100_000 + "x",
    "thoughts": "<think></think>" * 20_000,
    "open thoughts": "<think>" * 20_000,
    "closed thoughts": "</think>" * 20_000,
    "thought parts": "</think" * 20_000,
    "bullets": "- \n" * 50_000,
    "stars": "*" * 100_000,
    "quotes": '"' * 100_000,
    "backslashes": "\\" * 100_000,
    "labels": "neutral " * 20_000,
    "nots": "not " * 30_000,
    "lines": "\n" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_no_time(name: str) -> None:
    for reader in READERS.values():
        began = time.process_time()
        reader(HOSTILE[name])
        assert time.process_time() - began < 2
