"""`autoif trace` and `autoif why`, as a person calls them, on runs that really happened and on files that lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench, rows

from autoif_blocks import cli
from autoif_blocks.lineage import Files
from autoif_blocks.plain import one_line, plain

STEPS = """
  - {name: more, block: self_instruct, n: 1, demonstrations: 2, prompt: "WRITE {{ demonstrations }}"}
  - {name: functions, block: write_verifiers, n: 3, prompt: "CODE {{ instruction }}"}
  - {name: checked, block: cross_validate}
  - name: answered
    blocks:
      - {block: join_queries, path: queries.jsonl, per_record: 2, keep: [instruction, functions]}
      - {block: respond, n: 2, prompt: "ANSWER {{ query }}"}
  - name: verified
    blocks: [{block: dedup}, {block: verify_responses, pass_rate: 1}]
  - {name: scored, block: judge_score, prompt: "RATE {{ response }}"}
  - {name: kept, block: keep_where, field: score, value: "> 7"}
  - {name: chat, block: format_sft}
"""
NO_COMMA = "def evaluate(response):\n    return ',' not in response\n"
SHORT = "def evaluate(response):\n    return len(response) < 30\n"
WRONG = "def evaluate(response):\n    return 'z' in response\n"
CASES = [{"input": "plain", "output": True}, {"input": "one, two, and so on and on it goes", "output": False}]
ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202e"


def answer(prompt: str) -> Any:
    kind, _, rest = prompt.partition(" ")
    if kind == "CODE":
        return [json.dumps({"func": code, "cases": CASES}) for code in (NO_COMMA, SHORT, WRONG)]
    if kind == "ANSWER":
        return {"hello?": ["fine words", "with, a comma"], "what?": ["poor words", "poor words"]}[rest]
    return {"WRITE": "- Use no commas at all.", "RATE": "Score: 3, dull" if "poor" in rest else "Score: 9"}[kind]


@pytest.fixture
def run(bench: Bench) -> Bench:
    bench.model.answer = answer
    (bench.folder / "queries.jsonl").write_text('{"query": "hello?"}\n{"query": "what?"}\n')
    bench.run(STEPS, [{"instruction": f"Write {n} words."} for n in (1, 2, 3)], more="seed: 3")
    return bench


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", ["autoif", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def find(bench: Bench, file: str, **fields: Any) -> str:
    found = [row for row in rows(bench.out / file) if fields.items() <= row.get("record", row).items()]
    return str(found[0]["id"])


Said = pytest.CaptureFixture[str]
NEW = {"instruction": "Use no commas at all."}


def test_a_record_is_traced_from_its_seeds(run: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    assert call(monkeypatch, "trace", run.out, find(run, "kept.jsonl", **NEW, response="fine words")) == 0
    said = capsys.readouterr().out
    row = next(row for row in rows(run.out / "more.jsonl") if row["instruction"] == NEW["instruction"])
    texts = {seed["id"]: seed["instruction"] for seed in rows(run.out / "given.jsonl")}
    seeds = [f"      {texts[seed]}\n" for seed in row["seeds"]]
    assert len(seeds) == 2
    in_order = [
        "2 more", "written after these seeds:", *seeds, "instruction: Use no commas", "3 functions", "function 1:",
        "return ',' not in response", "function 3:", "'z' in response", "2 cases", "4 checked",
        "functions: 2 of 3 stay: 1, 2", "2 cases; a column a function", "++  true   plain", "++  false  one, two",
        "left out: function_inaccurate: accuracy 0.50", "5 answered", "query: hello?", "response: fine words",
        "6 verified", "functions say: true, true", "7 scored", "score: 9.0", "score_answers 1: Score: 9", "8 kept",
        "9 chat", "survived: it is in",
    ]  # fmt: skip
    at = 0
    for words in in_order:
        assert words in said[at:], f"{words!r} is missing after:\n{said[:at]}"
        at = said.index(words, at) + len(words)


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("dropped/verified.jsonl", {"response": "with, a comma"},
         ["dropped at step 6 verified (VerifyResponses): failed_verification: 1 of 2", "function 1 says false:",
          "',' not in response", "pass_rate: 0.5"]),
        ("dropped/kept.jsonl", {"response": "poor words"},
         ["dropped at step 8 kept (KeepWhere): score_not_> 7: 3", "score_answers 1: Score: 3, dull"]),
        ("kept.jsonl", {"response": "fine words"}, ["survived: it is in", "chat.jsonl"]),
        ("more.jsonl", NEW, ["became 3 records, after step 4 checked:", "1 survived", "1 dropped at 8 kept: score",
                             "1 dropped at 6 verified: failed_verification"]),
    ],
)  # fmt: skip
def test_why_tells_what_became_of_a_record(
    run: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said, file: str, fields: dict[str, Any], told: list[str]
) -> None:
    record_id = find(run, file, **{**fields, **NEW})
    assert call(monkeypatch, "why", run.out, record_id) == 0
    said = capsys.readouterr().out
    assert [words for words in told if words not in said] == []
    assert "says true" not in said


def test_why_finds_by_text_and_lists_several(run: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    assert call(monkeypatch, "why", run.out, "poor words") == 0
    said = capsys.readouterr().out
    assert "4 records; name one by its id" in said
    assert said.count("dropped at 8 kept: score_not_> 7") == 4
    assert call(monkeypatch, "why", run.out, "Use no commas at all.") == 0
    assert "4 records" in capsys.readouterr().out


def test_equal_records_are_told_apart(run: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    """Two equal responses share an id: one is dropped as a duplicate, the other lives on until it is dropped itself."""
    record_id = find(run, "dropped/kept.jsonl", response="poor words")
    assert call(monkeypatch, "trace", run.out, record_id) == 0
    said = capsys.readouterr().out
    assert "an equal one was dropped: duplicate: of" in said
    assert said.rstrip().splitlines()[-1].startswith("dropped at step 8 kept")


def test_of_two_equal_that_leave_at_one_step_the_one_that_was_no_duplicate_counts(tmp_path: Path) -> None:
    rows = [("dropped/two.jsonl", {"id": "x", "reason": reason}) for reason in ("duplicate", "failed")]
    dropped = Files(output(tmp_path / "o", ("one.jsonl", {"id": "x"}), *rows)).trails(["x"])["x"].dropped
    assert dropped is not None
    assert dropped.row["reason"] == "failed"


def output(folder: Path, *rows: tuple[str, dict[str, Any] | bytes]) -> Path:
    """An output directory of two steps, written by hand."""
    steps = [{"name": name, "number": n, "file": f"{name}.jsonl"} for n, name in enumerate(("one", "two"), 1)]
    (folder / "dropped").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": "stopped", "steps": steps}))
    for name, row in rows:
        with (folder / name).open("ab") as file:
            file.write(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("why", "nothing-here"), "no record of"), (("why", "  "), "name a record's id"), (("why", "y"), "no further"),
     (("trace", "nothing-here"), "no file of"), (("trace", "x"), "dropped at step 2 two: odd")],
)  # fmt: skip
def test_what_is_unknown_or_unfinished_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said, arguments: tuple[str, str], told: str
) -> None:
    out = output(
        tmp_path / "o", ("one.jsonl", {"id": "x", "made_from": ["x", "gone", 3]}), ("one.jsonl", b"not JSON\n"),
        ("one.jsonl", {"id": "y", "functions": 7, "cases": [None, {"input": 3}], "case_verdicts": [[1], [2]]}),
        ("one.jsonl", b'{"id": 7}\n'), ("dropped/two.jsonl", {"id": "x", "reason": "odd", "record": "too deep"}),
    )  # fmt: skip
    code = call(monkeypatch, arguments[0], out, arguments[1])
    said = capsys.readouterr()
    unknown = arguments[1] not in ("x", "y")
    assert code == (2 if unknown else 0)
    assert told in (said.err if unknown else said.out)


def test_a_directory_without_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    for command in ("trace", "why"):
        assert call(monkeypatch, command, tmp_path / "nowhere", "x") == 2
        assert "holds no run: there is no run.json" in capsys.readouterr().err


def test_no_model_steers_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    """Every place where a record's text is printed: names of fields, reasons, code, cases, answers, lists."""
    fields = {
        "response": ESCAPES, ESCAPES: ESCAPES, "functions": [f"{ESCAPES}\n{ESCAPES}"], "verdicts": [ESCAPES],
        "cases": [{"input": ESCAPES, "output": ESCAPES}], "score_answers": [ESCAPES], "deep": {ESCAPES: [ESCAPES]},
    }  # fmt: skip
    dropped = {"step": "two", "block": ESCAPES, "reason": ESCAPES, "detail": ESCAPES}
    out = output(
        tmp_path / "o", ("one.jsonl", {"id": "x", **fields}), ("one.jsonl", {"id": "y", **fields}),
        ("dropped/two.jsonl", {"id": "x", **dropped, "record": {**fields, "more": 1}}),
    )  # fmt: skip
    for arguments in (("trace", "x"), ("why", "x"), ("why", "owned"), ("why", "y"), ("trace", "y")):
        assert call(monkeypatch, arguments[0], out, arguments[1]) == 0
        said = capsys.readouterr().out
        assert "\\x1b]0;owned\\x07" in said
        assert not set(said) & set("\x1b\x07\x9b\u202e\r\x00")


def test_plain_text_stays_as_it_is() -> None:
    assert plain("Grüße\t你好\n🙂‍↔️ done") == "Grüße\t你好\n🙂‍↔️ done"
    assert plain("a\rb\x00\x7f\ud800\u2028") == "a\\x0db\\x00\\x7f\\ud800\\u2028"
    assert one_line("a\n b\tc" + "d" * 200, 10) == "a b cdddd…"


def test_a_circle_of_ancestors_ends(tmp_path: Path) -> None:
    out = output(
        tmp_path / "o", ("one.jsonl", {"id": "x", "made_from": ["y"]}), ("two.jsonl", {"id": "y", "made_from": ["x"]})
    )
    assert [link.trail.id for link in Files(out).chain("y")] == ["x", "y"]
    assert [link.trail.id for link in Files(out).chain("x")] == ["x"]
