"""Duplicates: which of those that are alike stays, that order and tasks do not matter, and that what differs stays."""

from __future__ import annotations

import os
import random
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pytest
import tokenizers
from conftest import Bench, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import have, loaded

from autoif_blocks.blocks.duplicates import DedupMinhash
from autoif_blocks.export import export
from autoif_blocks.languages import words_of
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import Record
from autoif_blocks.run import RunOptions
from autoif_blocks.teacher.families import recognise

BREAD = """
    a good rule for bread is to begin with something small and to let it rest until the kitchen is warm again before you
    fold the dough over itself twice and put it back into the bowl where it waits for the morning
"""
WORDS = BREAD.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't use ３ WORDS; café!", ["don", "t", "use", "3", "words", "café"]),
        ("cafe\u0301", ["café"]),
        ("写一个故事，two lines。", ["写", "一", "个", "故", "事", "two", "lines"]),
        ("ガラスの靴", ["ガ", "ラ", "ス", "の", "靴"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("¿?! -- _", []),
    ],
)
def test_words_of_spaced_and_unspaced_scripts(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def left(texts: list[str], **options: Any) -> list[int]:
    """The numbers of the texts that stay; their ids are in the order of the numbers."""
    documents = [Record.new(i, t=text).document for i, text in enumerate(texts)]
    for number, document in enumerate(documents):
        document.id = f"{number:04d}"
    random.Random(0).shuffle(documents)
    return [int(document.id) for document in DedupMinhash(field="t", **options).run(documents)]


def changed(places: int) -> str:
    words = list(WORDS)
    for place in random.Random(places).sample(range(len(words)), places):
        words[place] = f"changed{place}"
    return " ".join(words)


@pytest.mark.parametrize(
    ("other", "stays"),
    [
        (" ".join(WORDS).upper().replace(" ", "  ") + "!", False),
        (" ".join([*WORDS[:-1], "evening"]), False),
        (" ".join(reversed(WORDS)), True),
        (changed(20), True),
        (" ".join(WORDS[:20]), True),
    ],
)
def test_near_duplicates_go_and_what_differs_stays(other: str, stays: bool) -> None:
    assert left([" ".join(WORDS), other]) == ([0, 1] if stays else [0])
    assert left([other, " ".join(WORDS)]) == ([0, 1] if stays else [0])  # the smallest id stays, whichever it is


@pytest.mark.parametrize(
    ("texts", "stay"),
    [
        (["ok then", "OK, then.", "ok now"], [0, 2]),  # shorter than a shingle
        (["", "!", " "], [0, 1, 2]),  # no word: nothing is known of them
        (["Write 50 words about bread and tea.", "Write 80 words about bread and tea."], [0, 1]),
        (["写一个关于春天的短故事，要有三段", "写一个关于春天的短故事,要有三段！"], [0]),
    ],
)
def test_short_texts_numbers_and_scripts_without_spaces(texts: list[str], stay: list[int]) -> None:
    assert left(texts, n_grams=5) == stay


def test_as_many_pairs_are_found_as_datatrove_promises() -> None:
    """92% of those that share 80% of their shingles; hardly any that share half."""
    rng = random.Random(1)

    def found(shared: int, own: int) -> int:
        count = 0
        for _ in range(50):
            common = [f"w{rng.getrandbits(40)}" for _ in range(shared)]
            one, other = ([*common, *(f"w{rng.getrandbits(40)}" for _ in range(own))] for _ in range(2))
            count += len(left([" ".join(one), " ".join(other)], n_grams=1)) == 1
        return count

    assert found(80, 10) > 40  # 80 of 100
    assert found(50, 25) < 10  # 50 of 100


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from([changed(places) for places in (0, 1, 2, 3, 9, 30)] + ["", "x y"]), max_size=12))
def test_what_stays_is_new_and_what_goes_is_not(texts: list[str]) -> None:
    stay = left(texts)
    for number, text in enumerate(texts):
        if number not in stay:
            assert any(len(left([texts[earlier], text])) == 1 for earlier in stay if earlier < number)
    assert left([texts[number] for number in stay]) == list(range(len(stay)))


def function(expression: str) -> str:
    return f"def evaluate(response):\n    return {expression}\n"


def instruction(text: str, functions: list[str], wanted: list[str], unwanted: list[str]) -> dict[str, Any]:
    cases = [{"input": case, "output": True} for case in wanted] + [
        {"input": case, "output": False} for case in unwanted
    ]
    return {"instruction": text, "functions": [function(one) for one in functions], "cases": cases}


LONG = "one two three four five six"
GIVEN = [
    instruction("Use no commas.", ["',' not in response"], ["a b"], ["a, b"]),
    instruction(
        "Avoid the comma.", ["response.count(',') == 0", "1/0", "not response.count(',')"], ["c"], ["c, d", ","]
    ),
    instruction("At least five words.", ["len(response.split()) >= 5"], [LONG], ["four words are here"]),
    instruction("At least six words.", ["len(response.split()) >= 6"], [LONG], ["one two three four five"]),
    instruction("Five words or more.", ["not len(response.split()) < 5"], ["a b c d e"], ["a b c d"]),
    instruction("Be kind.", ["True"], ["x"], []),
    instruction("Be nice.", ["bool(1)"], ["y"], []),
    instruction("Be nothing.", ["False"], [], ["z"]),
    instruction("Be broken.", ["1/0"], [], ["z"]),
    instruction("Be broken too.", ["1/0"], [], ["z"]),
]
FAMILIES = "  - {name: families, block: dedup_functions, evidence: 1}\n"


def test_instructions_in_other_words_are_one_family(bench: Bench) -> None:
    stay = bench.run(FAMILIES, GIVEN)
    texts = {row["instruction"] for row in stay}
    commas, fives = {"Use no commas.", "Avoid the comma."}, {"At least five words.", "Five words or more."}
    assert len(texts & commas) == len(texts & fives) == 1
    assert texts | commas | fives == {row["instruction"] for row in GIVEN}, "constant functions are no family"
    kept = {row["id"]: row["instruction"] for row in stay}
    for row in bench.dropped("families"):
        first = row["detail"].removeprefix("of ").split(":")[0]
        assert (row["reason"], first < row["id"]) == ("same_behaviour", True), "the smallest id stays"
        assert {row["record"]["instruction"], kept[first]} in (commas, fives)


@pytest.mark.parametrize(
    "steps", [FAMILIES, pytest.param(FAMILIES.replace("evidence: 1", "evidence: 1, pool: 8"), marks=pytest.mark.heavy)]
)
def test_neither_order_nor_tasks_nor_the_pool_s_size_changes_who_stays(bench: Bench, steps: str) -> None:
    """A pool too small to show a difference leaves the record, or asks about the cases that it had no room for."""
    first = bench.run(steps, GIVEN)
    assert bench.run(steps, GIVEN[::-1], "executor: {tasks: 3}", overwrite=True, resume=False) == first
    texts = {row["instruction"] for row in first}
    assert {"At least six words.", "Be kind.", "Be nice."} < texts


def test_records_that_have_shown_little_stay(bench: Bench) -> None:
    """Two that accept one and the same text of many are not known to be alike."""
    pair = [
        instruction(f"Say {word}.", [f"response == {LONG!r}"], [LONG], ["a", "b", "c"]) for word in ("this", "that")
    ]
    assert len(bench.run(FAMILIES, pair)) == 1
    assert len(bench.run(FAMILIES.replace("1}", "2}"), pair, overwrite=True)) == 2


def test_what_the_pool_has_no_room_for_is_asked_of_those_that_agree_on_it(bench: Bench) -> None:
    same = [
        {**instruction(f"{n} words.", [f"len(response.split()) >= {n}"], [LONG], ["a"]), "response": "1 2 3 4 5"}
        for n in (5, 6)
    ]
    assert len(bench.run(FAMILIES, same)) == 1
    assert len(bench.run(FAMILIES.replace("1}", "1, pool: 2, also: [response]}"), same, overwrite=True)) == 2


def test_more_texts_tell_functions_apart(bench: Bench) -> None:
    pair = [
        {**instruction("No commas.", ["',' not in response"], ["a"], ["b, c"]), "response": "d; e"},
        {**instruction("No marks.", ["not set(response) & set(',;')"], ["a"], ["b, c"]), "response": "f"},
    ]
    assert len(bench.run(FAMILIES, pair)) == 1
    assert len(bench.run(FAMILIES.replace("1}", "1, also: [response]}"), pair, overwrite=True)) == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("dedup_minhash, n_grams: 0", "n_grams must be at least 1, got 0"),
        ("dedup_minhash, buckets: -1", "buckets must be at least 1, got -1"),
        ("dedup_functions, pool: 0", "pool must be at least 1, got 0"),
        ("dedup_functions, evidence: 0", "evidence must be at least 1, got 0"),
        ("dedup_functions, max_functions: 0", "max_functions must be at least 1, got 0"),
        ("dedup_functions", "'cases'"),
    ],
)
def test_options_that_make_no_sense_are_told(bench: Bench, options: str, told: str) -> None:
    fields = [{"response": "r", "functions": [], **({"cases": []} if ":" in options else {})}]
    with pytest.raises(Exception, match=r"recipe\.yaml:\d+: step 'x'") as error:
        Recipe.load(bench.recipe(f"  - {{name: x, block: {options}}}\n", fields))
    assert told in str(error.value)


def model2vec() -> Any:
    if find_spec("model2vec") is None:
        said = "needs model2vec: pip install -e '.[semantic]'"
        pytest.fail(said) if os.environ.get("AUTOIF_SEMANTIC") == "required" else pytest.skip(said)
    return import_module("model2vec")


def static_model(folder: Path) -> Path:
    """A model of model2vec's own making, with three meanings."""
    static = model2vec().StaticModel
    meanings = {"[UNK]": (0, 0, 0), "bread": (1, 0, 0), "loaf": (1, 0.1, 0), "tea": (0, 1, 0), "boat": (0, 0, 1)}
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(meanings)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    static(numpy.array([*meanings.values()], dtype="float32"), tokenizer).save_pretrained(str(folder))
    return folder


def test_texts_of_one_meaning_are_alike(bench: Bench) -> None:
    model = static_model(bench.folder / "model")
    texts = ["bread", "loaf", "tea", "boat", "bread tea", "tea loaf", "unknown", "stranger"]
    steps = f"  - {{name: meanings, block: dedup_semantic, field: query, embeddings: {model}, threshold: 0.98}}\n"
    stay = bench.run(steps, [{"query": text} for text in texts])
    dropped = bench.dropped("meanings")
    kept = {row["id"]: row["query"] for row in stay}
    pairs = [({row["record"]["query"], kept[row["detail"].split()[1].strip(",")]}) for row in dropped]
    assert sorted(map(sorted, pairs)) == [["bread", "loaf"], ["bread tea", "tea loaf"]]
    assert all("cosine 0.99" in row["detail"] for row in dropped)
    again = bench.run(steps, [{"query": text} for text in texts[::-1]], "executor: {tasks: 3}", overwrite=True)
    assert again == stay


def test_a_model_that_cannot_be_loaded_ends_the_run_with_a_remedy(bench: Bench) -> None:
    model2vec()
    nowhere = bench.folder / "nowhere"
    with pytest.raises(Exception, match=r"cannot load the embedding model.*name the folder of a model2vec model"):
        bench.run(f"  - {{name: meanings, block: dedup_semantic, embeddings: {nowhere}}}\n", [{"query": "q"}])


@pytest.mark.heavy
@pytest.mark.long
def test_families_of_the_simulated_teacher_are_told_by_their_functions(tmp_path: Path) -> None:
    """Its instructions come in several wordings, and what they mean is known: a pair that is none is the exception."""
    recipe = Recipe.load(Path(__file__).parents[1] / "pipelines" / "clean.yaml", [f"output_dir={tmp_path}"])
    assert recipe.run(RunOptions())["state"] == "completed"

    def meaning(text: str) -> Any:
        reading = recognise(text)
        return reading and (reading.family.name, reading.params)

    kept = {row["id"]: row["instruction"] for row in rows(tmp_path / "families.jsonl")}
    pairs = [
        (row["record"]["instruction"], kept[row["detail"].split()[1].strip(":")])
        for row in rows(tmp_path / "dropped" / "families.jsonl")
    ]
    right = sum(meaning(one) == meaning(other) is not None for one, other in pairs)
    meanings = [meaning(text) for text in kept.values() if meaning(text)]
    assert right > 40
    assert right >= 0.95 * len(pairs)
    assert right >= 0.7 * (right + len(meanings) - len(set(meanings)))  # of those that there are

    have("datasets", "pyarrow")
    export(tmp_path, "messages", tmp_path / "set")
    chats = rows(tmp_path / "sft_data.jsonl")
    assert [row["messages"] for row in loaded(tmp_path / "set")["rows"]] == [row["dialogs"] for row in chats]
    assert len(chats) > 100
