"""Decontamination: both rules, in any script; evidence; evaluation files that are wrong; the report and the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from autoif_blocks.blocks.contamination import Decontaminate
from autoif_blocks.errors import RecipeError
from autoif_blocks.export import export
from autoif_blocks.lineage import Files
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import Record
from autoif_blocks.report.collect import collect

WORDS = [f"w{number}" for number in range(40)]
LONG = " ".join(WORDS[:20])
CHINESE = "写一段关于山里清晨的文字，恰好五句话，不要使用逗号"


def verdict(folder: Path, prompt: str, query: str, instruction: str = "", **options: Any) -> tuple[str, str] | None:
    path = folder / "evals.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": text}) + "\n" for text in ("Something else entirely here now", prompt))
    )
    block = Decontaminate([str(path)], **options)
    list(block.run([]))
    return block.reject(Record.new(query, instruction, query=query, instruction=instruction))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("prompt", "query", "instruction", "reason"),
    [
        (LONG, "so: " + " ".join(WORDS[4:17]), "", "evaluation_ngram"),
        (LONG, "so: " + " ".join(WORDS[4:16]), "", "evaluation_overlap"),  # 12 of 20
        (LONG, " ".join(WORDS[4:14]), "", None),  # 10 of 20 is not more than half
        (LONG, " ".join(WORDS[:8]) + " x " + " ".join(WORDS[12:20]), "", "evaluation_overlap"),  # 8 + 8 of 20
        (LONG, " ".join(WORDS[:7]) + " x " + " ".join(WORDS[10:17]), "", None),  # no run of eight
        (LONG, " ".join(WORDS[:10]), " ".join(WORDS[10:20]), "evaluation_ngram"),  # over the seam of two fields
        (LONG, " ".join(WORDS[:20]).upper().replace(" ", ",\n"), "", "evaluation_ngram"),
        (LONG, " ".join(reversed(WORDS[:20])), "", None),
        (" ".join(WORDS[:6]), "I ask: " + " ".join(WORDS[:6]) + "?", "", "evaluation_ngram"),  # short: whole
        (" ".join(WORDS[:6]), " ".join(WORDS[:5]), "", None),
        ("Tell me more", "Tell me more about tea.", "", None),  # in everybody's mouth
        ("Tell me more", "Tell me more!", "Use no commas.", "evaluation_ngram"),
        ("Tell me more", "What is tea?", "tell me MORE", "evaluation_ngram"),
        (CHINESE, "请" + CHINESE[2:15].replace("，", ""), "", "evaluation_overlap"),
        (CHINESE, "请" + CHINESE[:16], "", "evaluation_ngram"),
        (CHINESE, "请" + CHINESE[:8], "", None),
        ("x", "y", "", None),
    ],
)  # fmt: skip
def test_what_shares_text_with_a_prompt(
    tmp_path: Path, prompt: str, query: str, instruction: str, reason: str | None
) -> None:
    found = verdict(tmp_path, prompt, query, instruction)
    assert (found and found[0]) == reason
    if found:
        assert found[1].startswith("evals.jsonl:2, ")


def test_the_evidence_is_short_and_says_how_much(tmp_path: Path) -> None:
    found = verdict(tmp_path, LONG, " ".join(WORDS[4:16]))
    assert found == ("evaluation_overlap", "evals.jsonl:2, 12 of its 20 words: " + " ".join(WORDS[4:16]))
    found = verdict(tmp_path, LONG, LONG)
    assert found == ("evaluation_ngram", "evals.jsonl:2, 13 words: " + " ".join(WORDS[:13]))
    long = " ".join(word * 4 for word in WORDS[:20])
    assert len(verdict(tmp_path, long, long)[1]) < 120  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"ngram": 12}, "evaluation_ngram"), ({"overlap": 0.6}, None), ({"overlap": 1}, None),
     ({"overlap_ngram": 12}, "evaluation_overlap"), ({"overlap_ngram": 13}, None), ({"fields": ["instruction"]}, None)],
)  # fmt: skip
def test_the_numbers_are_options(tmp_path: Path, options: dict[str, Any], reason: str | None) -> None:
    found = verdict(tmp_path, LONG, " ".join(WORDS[4:16]), "Use no commas.", **options)
    assert (found and found[0]) == reason


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(WORDS[:4]), min_size=1, max_size=25), st.lists(st.sampled_from(WORDS[:4]), max_size=30))
def test_the_rules_are_what_they_say(
    tmp_path_factory: pytest.TempPathFactory, prompt: list[str], said: list[str]
) -> None:
    """Against a slow reading of the two rules."""
    found = verdict(tmp_path_factory.mktemp("x"), " ".join(prompt), " ".join(said))
    runs = {tuple(said[i : i + n]) for n in (*range(5, 13), 13) for i in range(len(said) - n + 1)}
    length = min(13, len(prompt))
    ngram = any(tuple(prompt[i : i + length]) in runs for i in range(len(prompt) - length + 1))
    if len(prompt) < 5:
        ngram = prompt == said
    covered = {i + k for i in range(len(prompt) - 7) if tuple(prompt[i : i + 8]) in runs for k in range(8)}
    expected = "evaluation_ngram" if ngram else "evaluation_overlap" if len(covered) > len(prompt) / 2 else None
    assert (found and found[0]) == expected


STEPS = """
  - name: clean
    block: decontaminate
    against: AGAINST
  - {name: chat, block: format_sft, format: messages}
"""


def given_records() -> list[dict[str, Any]]:
    return [
        {"query": text, "instruction": "i", "response": "r"} for text in (LONG, "What is tea made of?", "And bread?")
    ]


@pytest.mark.parametrize(
    ("files", "against", "told"),
    [
        ({}, "[evals.jsonl]", "there is no file"),
        ({}, "['evals/*.jsonl']", "no file matches 'evals/*.jsonl'"),
        ({"evals.jsonl": ""}, "[evals.jsonl]", "is empty: it needs at least one line"),
        ({"evals.jsonl": "\n\n"}, "[evals.jsonl]", "is empty"),
        ({"evals.jsonl": '{"prompt": "a"}\n{"x": 1}\n'}, "[evals.jsonl]", "evals.jsonl:2: no prompt"),
        ({"evals.jsonl": '{"prompt": "..."}\n'}, "[evals.jsonl]", "evals.jsonl:1: the evaluation prompt has no word"),
        ({"evals.jsonl": "no json\n"}, "[evals.jsonl]", "evals.jsonl:1: not JSON"),
        ({"a.txt": "b c\n", "b.txt": ""}, "['*.txt']", "b.txt is empty"),
        ({"a.txt": "b c\n"}, "a.txt", "against must be a list"),
        ({}, "[]", "against must name at least one file"),
        ({"a.jsonl": '{"p": 3}\n'}, "[a.jsonl]\n    key: p", "a.jsonl:1: 'p' must be a text"),
        ({"a.txt": "b c\n"}, "[a.txt]\n    ngram: 3", "ngram must be at least 5"),
        ({"a.txt": "b c\n"}, "[a.txt]\n    overlap: 2", "overlap must be in [0, 1]"),
    ],
)  # fmt: skip
def test_evaluation_files_that_are_wrong_are_told_before_a_run(
    bench: Bench, files: dict[str, str], against: str, told: str
) -> None:
    for name, text in files.items():
        (bench.folder / name).write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml:\d+: step 'clean'") as error:
        Recipe.load(bench.recipe(STEPS.replace("AGAINST", against), given_records()))
    assert told in str(error.value)


def test_several_files_a_pattern_and_what_the_report_and_the_card_say(bench: Bench) -> None:
    (bench.folder / "evals").mkdir()
    (bench.folder / "evals" / "one.jsonl").write_text(json.dumps({"prompt": LONG}) + "\n")
    (bench.folder / "evals" / "two.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hm"}]}) + "\n"
    )
    (bench.folder / "more.txt").write_text("\n\nAnd bread?\n")
    steps = STEPS.replace("AGAINST", "['evals/*.jsonl', more.txt]")
    assert len(bench.run(steps, given_records())) == 1
    assert {row["detail"] for row in bench.dropped("clean")} == {
        "evals/one.jsonl:1, 13 words: ".removeprefix("evals/") + " ".join(WORDS[:13]),
        "more.txt:3, 2 words: and bread",
    }
    table = {row["label"]: row for row in collect(Files(bench.out))["table"]}
    row = table["Records that have no evaluation prompt in them"]
    assert (row["value"], round(row["share"], 3), row["step"]) == (1, 0.333, "clean")
    export(bench.out, "messages", bench.folder / "set")
    card = (bench.folder / "set" / "README.md").read_text()
    told = "2 of 3 records &#40;66.67%&#41; shared words with evals/&#42;.jsonl, more.txt; left out"
    assert f"| evaluation prompts | {told} |" in card
    # Another content of a matched file is another run.
    (bench.folder / "evals" / "two.jsonl").write_text(json.dumps({"prompt": "What is tea made of?"}) + "\n")
    with pytest.raises(RecipeError, match=r"the file two\.jsonl"):
        bench.run(steps, given_records())


def test_a_card_says_if_nobody_looked(bench: Bench) -> None:
    bench.run("  - {name: chat, block: format_sft, format: messages}\n", given_records())
    export(bench.out, "messages", bench.folder / "set")
    assert "| evaluation prompts | not looked for |" in (bench.folder / "set" / "README.md").read_text()


def test_tasks_change_nothing(bench: Bench) -> None:
    (bench.folder / "evals.txt").write_text(LONG + "\n")
    steps = STEPS.replace("AGAINST", "[evals.txt]")
    first = bench.run(steps, given_records())
    dropped = bench.dropped("clean")
    assert bench.run(steps, given_records(), "executor: {tasks: 3}", overwrite=True) == first
    assert bench.dropped("clean") == dropped == rows(bench.out / "dropped" / "clean.jsonl")
