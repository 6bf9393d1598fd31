"""What is done to a text, whether any text takes it, and whether it tells right functions from wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoif_blocks.perturbations import GRAFTS, PERTURBATIONS, mutants
from autoif_blocks.teacher import FAMILIES, Family, chinese
from autoif_blocks.teacher.families import CHINESE
from autoif_blocks.teacher.family import fill_code
from autoif_blocks.teacher.prose import TOPICS, write

RICH = "Title: A day, in 3 parts\n\n- First point.\n- Second (small) point!\n\nIt ends here. Does it? Yes."


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("drop_word", "one two", {"one ", "two"}),
        ("drop_word", "", {""}),
        ("drop_word", "你好吗", {"好吗", "你吗", "你好"}),
        ("drop_first_word", "One two.", {"two."}),
        ("drop_last_word", "One two.", {"One"}),
        ("repeat_word", "one", {"one one"}),
        ("drop_sentence", "One. Two!", {"One. ", "Two!"}),
        ("drop_sentence", "一。二！", {"一。", "二！"}),
        ("repeat_sentence", "One two.", {"One two. One two."}),
        ("reverse_sentences", "One. Two!\nThree", {"Three Two! One."}),
        ("first_half", "abcd", {"ab"}),
        ("second_half", "abc d", {"c d"}),
        ("clip_words", "A thirsty traveller.", {"A thir trav."}),
        ("drop_bullet", "x\n- a\n2. b\ny", {"x\n2. b\ny", "x\n- a\ny"}),
        ("drop_bullet", "no list", {"no list"}),
        ("drop_paragraph", "one\n\ntwo", {"one\n\n", "two"}),
        ("drop_paragraph", "one\ntwo", {"one\ntwo"}),
        ("repeat_paragraph", "one", {"one\n\none"}),
        ("join_lines", "a\n\n b", {"a b"}),
        ("split_lines", "One. Two.", {"One.\nTwo."}),
        ("upper_case", "one", {"ONE"}),
        ("swap_case_of_word", "One", {"oNE"}),
        ("drop_digits", "12 of 3", {" of "}),
        ("add_comma", "One two.", {"One, two."}),
        ("add_comma", "One.", {"One,."}),
        ("drop_marks", "- One, (two).", {" One two"}),
        ("drop_one_mark", "a, b.", {"a b.", "a, b"}),
        ("repeat_one_mark", "a.", {"a.."}),
        ("change_end", "One.", {"One!"}),
        ("change_end", "Is it?", {"Is it."}),
        ("exclaim", "One. 二。", {"One! 二!"}),
    ],
)
def test_a_perturbation_does_what_its_name_says(name: str, text: str, made: set[str]) -> None:
    assert {PERTURBATIONS[name](text, Random(seed)) for seed in range(30)} == made


def test_every_perturbation_changes_a_text_that_has_everything() -> None:
    found = mutants(RICH, ["Another one."])
    assert set(found.values()) == {*PERTURBATIONS, *GRAFTS}
    assert RICH not in found
    assert RICH + "\nAnother one." in found


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=80), st.lists(st.text(max_size=20), max_size=2))
def test_any_text_takes_them_all(text: str, others: list[str]) -> None:
    found = mutants(text, others)
    assert found == mutants(text, others)
    assert text not in found


def compiled(template: str, params: Any) -> Callable[[str], Any]:
    namespace: dict[str, Any] = {}
    exec(fill_code(template, params), namespace)  # noqa: S102 - the teacher's own harmless functions, in a test
    function: Callable[[str], Any] = namespace["evaluate"]
    return function


def said(function: Callable[[str], Any], texts: list[str]) -> list[bool | None]:
    found: list[bool | None] = []
    for text in texts:
        try:
            found.append(bool(function(text)))
        except Exception:
            found.append(None)
    return found


@pytest.mark.parametrize("family", [*FAMILIES, *CHINESE], ids=lambda family: family.name)
def test_perturbations_tell_right_functions_from_wrong_ones(family: Family) -> None:
    """Of every kind of instruction: what follows it stops doing so, and no wrong function says all that a right one
    says."""
    told_apart: set[str] = set()
    for seed in range(5):
        rng = Random(seed)
        params = family.draw(rng)
        prose = chinese.write if family.language == "zh" else write
        follows = family.comply(prose(rng.choice(TOPICS), rng, 3), params, rng)
        misses = family.violate(prose(rng.choice(TOPICS), rng, 3), params, rng)
        texts = [follows, misses, *mutants(follows, [misses]), *mutants(misses)]
        right = said(compiled(family.correct[0], params), texts)
        assert False in right[2 : 2 + len(mutants(follows, [misses]))]
        told_apart |= {wrong.code for wrong in family.wrong if said(compiled(wrong.code, params), texts) != right}
    assert told_apart == {wrong.code for wrong in family.wrong}
