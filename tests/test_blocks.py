"""What each block does to records, through real recipes; the model is a real server whose answers the test scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench

from autoif_blocks.blocks.generators import normal_form
from autoif_blocks.blocks.queries import query_of
from autoif_blocks.blocks.threshold import Threshold
from autoif_blocks.errors import StopRun
from autoif_blocks.parsing import defines

NO_COMMA = "def evaluate(response):\n    return ',' not in response"
NO_COMMA_HELPED = (
    "import re\ndef has(text):\n    return re.search(',', text)\ndef evaluate(response):\n    return not has(response)"
)
ALWAYS = "def evaluate(response):\n    return True"
NEVER = "def evaluate(response):\n    return False"
CRASHES = "def evaluate(response):\n    return 1 / 0"
BROKEN = "import nothing_of_this_name\ndef evaluate(response):\n    return True"


def cases(*pairs: tuple[str, bool]) -> list[dict[str, Any]]:
    return [{"input": text, "output": verdict} for text, verdict in pairs]


@pytest.mark.parametrize(
    ("text", "value", "passes"),
    [("> 0.5", 0.5, False), (">= 0.5", 0.5, True), ("8", 8, True), (8, 7.9, False), ("<3", 2, True), ("== 1", 1, True),
     ("!= 1", 1, False), (" <=  .5 ", 0.5, True), (0, 0, True), ("> 0", 0.01, True), (">-1", 0, True)],
)  # fmt: skip
def test_thresholds_compare_as_written(text: str | float, value: float, passes: bool) -> None:
    assert Threshold(text).passes(value) is passes


@pytest.mark.parametrize("text", ["", "high", "> ", "> 1 2", "=> 3", True, "> nan", "0x10"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="comparison like"):
        Threshold(text)


def self_instruct(more: str = "") -> str:
    return f"""
  - name: more
    block: self_instruct
    n: 3
    prompt: "Like {{{{ demonstrations | join('; ') }}}}"
    {more}
"""


def test_new_instructions_join_the_seeds_once(bench: Bench) -> None:
    """Blank bullets, spellings of what is there, and prose around the list add nothing (pitfalls 11 and 15)."""
    bench.model.answer = lambda prompt: (
        "Here are some:\n- Use NO commas!\n- \n- Write in verse form.\n2. Write in  verse form\n- ok"
    )
    seeds = [{"instruction": "Use no commas."}, {"instruction": "End with a dot."}, {"instruction": "use no commas"}]
    left = bench.run(self_instruct(), seeds)
    assert sorted(row["instruction"] for row in left) == ["End with a dot.", "Use no commas.", "Write in verse form."]
    step = bench.step("more")
    assert step["dropped"] == {"duplicate": 9, "too_short": 3}
    assert step["in"] + step["created"] == step["out"] + sum(step["dropped"].values())


def test_every_sample_of_one_prompt_has_a_seed_of_its_own(bench: Bench) -> None:
    bench.run(self_instruct(), [{"instruction": "Use no commas."}])
    assert len({body["seed"] for body in bench.model.bodies}) == len(bench.model.bodies) == 3


def test_a_completion_without_instructions_is_noted(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "<think>hm</think>"
    assert len(bench.run(self_instruct(), [{"instruction": "Use no commas."}])) == 1
    assert [row["reason"] for row in bench.discarded("more")] == ["no_instructions"] * 3


def test_demonstrations_are_drawn_by_content(bench: Bench) -> None:
    seeds = [{"instruction": f"Write {i} words."} for i in range(20)]
    bench.run(self_instruct("demonstrations: 4"), seeds)
    first = sorted(bench.model.prompts)
    bench.model.prompts.clear()
    bench.run(self_instruct("demonstrations: 4"), seeds[::-1], overwrite=True, resume=False)
    assert sorted(bench.model.prompts) == first
    assert len(set(first)) == 3
    assert all(prompt.count("Write") == 4 for prompt in first)
    bench.model.answer = lambda prompt: f"- Like {prompt[5:].replace('; ', ' ')}"
    left = bench.run(self_instruct("demonstrations: 4"), seeds, overwrite=True, resume=False)
    texts = {row["id"]: row["instruction"] for row in left}
    made = [row for row in left if row["instruction"].startswith("Like")]
    assert (len(made), len(left)) == (3, 23)
    for row in made:  # each names the seeds that its prompt showed
        assert row["instruction"] == "Like " + " ".join(texts[seed] for seed in row["seeds"])


def test_normal_form_ignores_case_space_and_final_marks() -> None:
    assert normal_form(" Use  no\ncommas. ") == normal_form("use no COMMAS!") != normal_form("use no comma")


VERIFIERS = """
  - name: functions
    block: write_verifiers
    n: 8
    prompt: "Check {{ instruction }}"
"""


def test_one_misshapen_answer_of_eight_loses_one(bench: Bench) -> None:
    """Pitfall 8, and each piece of an answer stands for itself."""
    good = json.dumps({"func": NO_COMMA, "cases": cases(("a", True), ("a, b", False))})
    bench.model.answer = lambda prompt: [
        f"```json\n{good}\n```", f"<think>{{}}</think>Sure!\n{good}", "no JSON here", '{"func": "def evaluate(",',
        json.dumps({"func": NO_COMMA_HELPED, "cases": "none"}),
        json.dumps({"func": "def check(x): return True", "cases": [{"input": "c", "output": "True"}]}),
        json.dumps({"func": ALWAYS, "cases": [{"input": "d", "output": "maybe"}, {"input": 3, "output": True}, 7]}),
        json.dumps({"func": None, "cases": [{"input": "e", "output": "no"}]}),
    ]  # fmt: skip
    (record,) = bench.run(VERIFIERS, [{"instruction": "Use no commas."}])
    assert record["functions"] == [NO_COMMA, NO_COMMA_HELPED, ALWAYS]
    assert record["cases"] == cases(("a", True), ("a, b", False), ("c", True), ("e", False))
    reasons = sorted(row["reason"] for row in bench.discarded("functions"))
    assert reasons == sorted(
        ["not_json"] * 2 + ["no_evaluate", "does_not_compile", "case_output_not_boolean"] + ["case_without_text"] * 2
    )


def test_an_instruction_without_any_function_is_dropped(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "sorry"
    assert bench.run(VERIFIERS, [{"instruction": "Use no commas."}]) == []
    assert [row["reason"] for row in bench.dropped("functions")] == ["no_function"]


def test_a_record_keeps_its_evidence_in_the_drop_log(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "sorry"
    bench.run(VERIFIERS, [{"instruction": "Use no commas."}])
    (row,) = bench.dropped("functions")
    assert (row["step"], row["block"], row["record"]) == (
        "functions", "WriteVerifiers", {"instruction": "Use no commas."},
    )  # fmt: skip


def validate(more: str = "") -> str:
    return f"\n  - {{name: checked, block: cross_validate{', ' + more if more else ''}}}\n"


def test_functions_and_cases_check_one_another(bench: Bench) -> None:
    """One namespace: functions with imports and helpers work (pitfall 6); a crash is a wrong answer."""
    given = {
        "functions": [NEVER, NO_COMMA, CRASHES, NO_COMMA_HELPED, BROKEN, NO_COMMA + "\n"],
        "cases": cases(("a", True), ("a, b", False), ("wrong", False), ("c", True)),
    }
    (record,) = bench.run(validate(), [given])
    assert record["functions"] == [NO_COMMA, NO_COMMA_HELPED, NO_COMMA + "\n"]
    assert record["cases"] == cases(("a", True), ("a, b", False), ("c", True))
    assert record["accuracies"] == [1.0, 1.0, 1.0]
    assert record["case_verdicts"] == [[True, False, True]] * 3
    details = [row["detail"] for row in bench.discarded("checked") if row["reason"] == "function_inaccurate"]
    assert sorted(detail.partition(": ")[2] for detail in details) == sorted([NEVER, CRASHES])
    reasons = sorted(row["reason"] for row in bench.discarded("checked"))
    assert reasons == ["case_disagreed", "function_inaccurate", "function_inaccurate", "load_error"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("min_functions: 5", "few_functions"),
        ("min_cases: 4", "few_cases"),
        ('case_agreement: "> 1"', "no_case_agreed"),
        ('function_accuracy: "> 1"', "no_function_accurate"),
        ("keep_functions: 3", "no_function_accurate"),
        ("keep_cases: 4", "no_case_agreed"),
    ],
)
def test_too_few_of_either_drop_the_instruction(bench: Bench, more: str, reason: str) -> None:
    given = {"functions": [NO_COMMA, NO_COMMA_HELPED, NEVER], "cases": cases(("a", True), ("a, b", False), ("c", True))}
    assert bench.run(validate(more), [given]) == []
    assert [row["reason"] for row in bench.dropped("checked")] == [reason]


def test_any_function_agrees_is_expressible(bench: Bench) -> None:
    """The scripts' rule: a case stays if one function agrees with it."""
    given = {"functions": [NO_COMMA, NEVER, CRASHES], "cases": cases(("a", True), ("b, c", False), ("d, e", True))}
    (record,) = bench.run(validate('case_agreement: "> 0", function_accuracy: ">= 0.8"'), [given])
    assert record["cases"] == cases(("a", True), ("b, c", False))
    assert record["functions"] == [NO_COMMA]


def test_hostile_functions_neither_hang_nor_fail_a_run(bench: Bench) -> None:
    """Pitfalls 3 and 4: each bad function is the only one that suffers."""
    hostile = [
        "def evaluate(response):\n  while True:\n    try:\n      1 / 0\n    except BaseException:\n      0",
        "import re\ndef evaluate(response):\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')",
        "import os\ndef evaluate(response):\n    os._exit(0)",
        "def evaluate(response):\n    return len('x' * 10**11)",
        "import builtins\nbuiltins.len = None\ndef evaluate(response):\n    raise SystemExit",
        "import os, signal\ndef evaluate(response):\n    os.kill(os.getppid(), signal.SIGKILL)",
    ]
    given = [
        {"functions": [bad, NO_COMMA, NO_COMMA_HELPED], "cases": cases(("a", True), ("a, b", False))} for bad in hostile
    ]
    left = bench.run(validate(), given, "sandbox: {call_timeout: 0.3, function_timeout: 0.6}")
    assert [record["functions"] for record in left] == [[NO_COMMA, NO_COMMA_HELPED]] * len(hostile)


BACK = """
  - {name: back, block: back_translate, max_functions: 2, prompt: "Say {{ function }}"}
"""


def test_back_translations_come_from_the_functions(bench: Bench) -> None:
    bench.model.answer = lambda prompt: '<think>x</think>"Use no commas."' if prompt.endswith("one") else " "
    left = bench.run(BACK, [{"functions": ["one", "two", "three"]}, {"functions": ["two"]}])
    assert [row["back_translations"] for row in left] == [["Use no commas."]]
    assert sorted(bench.model.prompts) == ["Say one", "Say two"]
    assert [row["reason"] for row in bench.dropped("back")] == ["no_back_translation"]


def judge(more: str = "") -> str:
    return f"""
  - name: nli
    block: judge_label
    model: teacher
    over: sayings
    labels: [entailment, neutral, contradiction]
    n: 5
    prompt: "{{{{ instruction }}}} / {{{{ item }}}}"
    {more}
  - {{name: kept, block: drop_label, field: label, label: contradiction}}
"""


def test_each_record_has_its_own_verdict(bench: Bench) -> None:
    """Pitfall 1: one contradiction decided all records."""
    bench.model.answer = lambda prompt: "contradiction" if "bad" in prompt else "**Entailment**."
    given = [{"instruction": f"i{n}", "sayings": ["good", "bad" if n == 3 else "fine"]} for n in range(8)]
    left = bench.run(judge(), given)
    assert sorted(row["instruction"] for row in left) == [f"i{n}" for n in range(8) if n != 3]
    assert [row["reason"] for row in bench.dropped("kept")] == ["contradiction"]


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        (["entailment"] * 2 + ["contradiction"] * 3, "contradiction"),
        (["contradiction"] * 2 + ["neutral"] * 3, "neutral"),
        (["contradiction"] + ["?"] * 4, "contradiction"),
        (["entailment", "entailment", "neutral", "neutral", "?"], "neutral"),
    ],
)
def test_every_vote_counts(bench: Bench, votes: list[str], label: str) -> None:
    """Pitfall 2: eight votes were paid for and one was read. A tie goes to the more cautious label."""
    bench.model.answer = lambda prompt: votes
    bench.run(judge(), [{"instruction": "i", "sayings": ["s"]}])
    row = json.loads((bench.out / "nli.jsonl").read_text())
    assert row["label"] == [label]
    assert sum(row["label_votes"][0].values()) == 5 - votes.count("?")
    assert row["label_answers"] == [votes]


def test_unusable_votes_are_asked_again_then_dropped(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "perhaps"
    assert bench.run(judge("reask: 2"), [{"instruction": "i", "sayings": ["s"]}]) == []
    assert sum(body["n"] for body in bench.model.bodies) == 15
    assert [row["reason"] for row in bench.dropped("nli")] == ["no_label"]


def queries(more: str = "") -> str:
    return f"\n  - {{name: pairs, block: join_queries, path: queries.jsonl{', ' + more if more else ''}}}\n"


@pytest.mark.parametrize(
    "row",
    [
        {"query": "hi"}, {"text": "hi"}, {"prompt": "hi"},
        {"dialogs": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no"}]},
        {"messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "hi"}]},
        {"conversations": [{"from": "system", "value": "no"}, {"from": "human", "value": "hi"}]},
        {"dialogs": ["hi", "no"]},
    ],
)  # fmt: skip
def test_queries_are_read_in_every_layout(row: dict[str, Any]) -> None:
    assert query_of(row) == "hi"


def test_a_row_without_a_query_says_what_it_has() -> None:
    with pytest.raises(ValueError, match="it has conversation, x"):
        query_of({"conversation": [{"from": "gpt", "value": "hi"}], "x": 1})


def write_queries(folder: Path, *texts: str) -> None:
    (folder / "queries.jsonl").write_text("".join(json.dumps({"query": text}) + "\n" for text in texts))


def test_queries_are_drawn_by_content_and_unfit_ones_are_noted(bench: Bench) -> None:
    good = [f"How do I repair the bicycle number {n}?" for n in range(30)]
    unfit = ["Hi", "x" * 400, "¿Cómo se prepara una tortilla de patatas española?", good[0]]
    write_queries(bench.folder, *unfit, *good)
    records = [{"instruction": f"i{n}"} for n in range(6)]
    more = "per_record: 5, min_chars: 10, max_chars: 300, languages: [en]"
    left = bench.run(queries(more), records)
    assert bench.step("pairs")["created"] == 24
    assert len(left) == 30
    assert len({row["query"] for row in left}) > 5
    assert sorted(row["reason"] for row in bench.discarded("pairs")) == [
        "query_duplicate", "query_other_language", "query_too_long", "query_too_short",
    ]  # fmt: skip
    write_queries(bench.folder, *good[::-1], *unfit)
    again = bench.run(queries(more), records[::-1], overwrite=True)
    assert again == left


def test_another_seed_draws_other_queries(bench: Bench) -> None:
    write_queries(bench.folder, *(f"query {n}" for n in range(50)))
    first = bench.run(queries("per_record: 5"), [{"instruction": "i"}])
    other = bench.run(queries("per_record: 5"), [{"instruction": "i"}], "seed: 1", overwrite=True)
    assert {row["query"] for row in first} != {row["query"] for row in other}


def test_a_small_pool_is_used_whole_and_an_empty_one_stops_the_run(bench: Bench) -> None:
    write_queries(bench.folder, "one query", "another query")
    assert len(bench.run(queries("per_record: 16"), [{"instruction": "i"}])) == 2
    with pytest.raises(StopRun, match="no query is left"):
        bench.run(queries("min_chars: 100"), [{"instruction": "i"}], overwrite=True)
    assert bench.model.bodies == []


RESPOND = """
  - {name: answered, block: respond, n: 3, prompt: "{{ query }}"}
  - {name: unique, block: dedup}
"""


def test_responses_fan_out_and_equal_ones_collide(bench: Bench) -> None:
    bench.model.answer = lambda prompt: ["yes", "", "yes"] if prompt == "q0" else ["a", "b", "c"]
    left = bench.run(RESPOND, [{"query": "q0"}, {"query": "q1"}])
    assert sorted(row["response"] for row in left) == ["a", "b", "c", "yes"]
    assert (bench.step("answered")["out"], bench.step("unique")["dropped"]) == (5, {"duplicate": 1})
    assert [row["reason"] for row in bench.discarded("answered")] == ["empty_completion"]


def test_dedup_on_fields_leaves_the_smallest_id_whatever_the_order(bench: Bench) -> None:
    given = [{"query": "q", "n": n} for n in range(5)] + [{"query": "p", "n": 0}]
    left = bench.run("\n  - {name: unique, block: dedup, on: [query]}\n", given)
    assert len(left) == 2
    smallest = min(row["id"] for row in bench.dropped("unique") + left if row.get("query", "q") == "q")
    assert smallest in {row["id"] for row in left}


def verify(more: str = "") -> str:
    return f"\n  - {{name: verified, block: verify_responses{', ' + more if more else ''}}}\n"


@pytest.mark.parametrize(
    ("more", "kept"),
    [("", ["all", "two"]), ('pass_rate: "> 0"', ["all", "one", "two"]), ("pass_rate: 1", ["all"]),
     ("max_functions: 1", ["all", "one", "two"])],
)  # fmt: skip
def test_responses_are_kept_by_pass_rate(bench: Bench, more: str, kept: list[str]) -> None:
    functions = {"all": [ALWAYS] * 3, "two": [ALWAYS, ALWAYS, NEVER], "one": [ALWAYS, CRASHES, NEVER], "none": [NEVER]}
    given = [{"query": name, "functions": f, "response": "r"} for name, f in functions.items()]
    left = bench.run(verify(more), given)
    assert sorted(row["query"] for row in left) == kept
    shown = {"all": [True] * 3, "two": [True, True, False], "one": [True, "exception", False], "none": [False]}
    for row in left:
        assert row["verdicts"] == (shown[row["query"]][:1] if "max" in more else shown[row["query"]])
    for row in bench.dropped("verified"):
        assert row["reason"] == "failed_verification"
        seen = row["record"]["verdicts"]
        assert seen == (shown[row["record"]["query"]][:1] if "max" in more else shown[row["record"]["query"]])
        assert row["record"]["pass_rate"] == round(seen.count(True) / len(seen), 4)


SCORE = """
  - {name: scored, block: judge_score, prompt: "{{ response }}"}
  - {name: kept, block: keep_where, field: score, value: "> 7"}
"""


def test_scores_are_read_however_they_are_dressed(bench: Bench) -> None:
    """Pitfall 9: `Score: 8/10`, `**Score: 9**` and `Score: 9.` were dropped."""
    answers = ["Score: 8/10", "**Score: 9**", "Score: 9.", "I'd say 8 out of 10", "7", "<think>3</think>8.5"]
    bench.model.answer = lambda prompt: answers[int(prompt)]
    left = bench.run(SCORE, [{"response": str(n)} for n in range(len(answers))])
    assert sorted(row["score"] for row in left) == [8, 8, 8.5, 9, 9]
    said = {row["response"]: row["score_answers"] for row in left}
    assert (said["0"], said["5"]) == (["Score: 8/10"], ["8.5"])
    assert bench.dropped("scored") == []
    assert [row["reason"] for row in bench.dropped("kept")] == ["score_not_> 7"]


def test_an_unusable_score_is_asked_for_again(bench: Bench) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "Score: 9" if len(asked) > 2 else "It is good."

    bench.model.answer = answer
    assert [row["score"] for row in bench.run(SCORE, [{"response": "r"}])] == [9]
    assert len({body["seed"] for body in bench.model.bodies}) == 3


def test_a_score_that_never_comes_drops_the_record(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "It is good." if prompt == "bad" else "8"
    assert len(bench.run(SCORE, [{"response": "bad"}, {"response": "good"}])) == 1
    (row,) = bench.dropped("scored")
    assert (row["reason"], row["record"]["score_answers"]) == ("no_score", ["It is good."])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("dialogs", {"dialogs": [{"role": "user", "content": "q\ni"}, {"role": "assistant", "content": "r"}]}),
        ("messages", {"messages": [{"role": "user", "content": "q\ni"}, {"role": "assistant", "content": "r"}]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q\ni"}, {"from": "gpt", "value": "r"}]}),
        ("alpaca", {"instruction": "q\ni", "input": "", "output": "r"}),
    ],
)
def test_chat_records_have_the_layout_asked_for(bench: Bench, form: str, expected: dict[str, Any]) -> None:
    step = f"\n  - {{name: sft, block: format_sft, format: {form}, keep: [score]}}\n"
    (row,) = bench.run(step, [{"query": "q", "instruction": "i", "response": "r", "score": 9, "functions": []}])
    del row["id"]
    assert row == {**expected, "metadata": {"score": 9}}


def test_a_system_message_comes_first(bench: Bench) -> None:
    step = '\n  - {name: sft, block: format_sft, format: messages, system: "Be {{ tone }}", user: "{{ query }}"}\n'
    (row,) = bench.run(step, [{"query": "q", "tone": "kind", "response": "r"}])
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][0]["content"] == "Be kind"


def test_lines_are_written_beside_the_records(bench: Bench) -> None:
    step = "\n  - name: out\n    blocks: [{block: write_lines, path: lines.txt, field: text}]\n"
    bench.run(step, [{"text": "two\nlines"}, {"text": "one"}])
    assert sorted((bench.out / "lines.txt").read_text().splitlines()) == ["one", "two lines"]


@pytest.mark.parametrize(
    ("value", "reason"), [("high", "score_not_a_number"), (None, "score_not_a_number"), (True, "score_not_a_number")]
)
def test_a_field_that_is_no_number_is_no_reason_to_crash(bench: Bench, value: Any, reason: str) -> None:
    step = "\n  - {name: kept, block: keep_where, field: score, value: 1}\n"
    assert len(bench.run(step, [{"score": value}, {"score": 2}])) == 1
    assert [row["reason"] for row in bench.dropped("kept")] == [reason]


@pytest.mark.parametrize(("when", "left"), [("any", 1), ("majority", 2), ("all", 3)])
def test_labels_drop_by_any_majority_or_all(bench: Bench, when: str, left: int) -> None:
    step = f"\n  - {{name: kept, block: drop_label, field: label, label: bad, when: {when}}}\n"
    given = [{"label": labels} for labels in (["ok"], ["bad", "ok", "ok"], ["bad", "bad", "ok"], ["bad"])]
    assert len(bench.run(step, given)) == left


def test_lengths_are_bounded(bench: Bench) -> None:
    step = "\n  - {name: kept, block: keep_length, field: response, min_chars: 2, max_chars: 3}\n"
    left = bench.run(step, [{"response": "x" * n} for n in range(6)])
    assert sorted(len(row["response"]) for row in left) == [2, 3]
    assert sorted(row["reason"] for row in bench.dropped("kept")) == ["too_long"] * 2 + ["too_short"] * 2


def test_a_datatrove_filter_is_counted_and_logged_like_ours(bench: Bench) -> None:
    step = '\n  - {name: clean, block: datatrove.pipeline.filters.RegexFilter, text: response, regex_exp: "spam"}\n'
    left = bench.run(step, [{"response": "good"}, {"response": "spam and eggs"}])
    assert [row["response"] for row in left] == ["good"]
    assert [row["record"]["response"] for row in bench.dropped("clean")] == ["spam and eggs"]


def test_what_a_datatrove_formatter_changes_is_the_field(bench: Bench) -> None:
    step = "\n  - {name: masked, block: datatrove.pipeline.formatters.PIIFormatter, text: response}\n"
    (row,) = bench.run(step, [{"response": "write to jane@mail.org"}])
    assert "jane" not in row["response"]
    assert "text" not in row


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (NO_COMMA, True), ("evaluate = lambda response: True", True), ("class evaluate:\n    pass", True),
        ("try:\n    import re\nexcept ImportError:\n    pass\nelse:\n    def evaluate(r):\n        return True", True),
        ("if True:\n    def evaluate(response):\n        return True", True),
        ("def check(response):\n    def evaluate(response):\n        return True", False), ("evaluate(3)", False),
    ],
)  # fmt: skip
def test_a_function_must_stand_at_the_top_level(code: str, found: bool) -> None:
    assert defines(code, "evaluate") is found
