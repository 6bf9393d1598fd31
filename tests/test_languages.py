"""Any language: texts pass through all steps unharmed, lengths are counted sensibly, and the teacher speaks Chinese."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml
from conftest import ROOT, Bench
from test_teacher import CALM, MODEL, compiled, verdict

from autoif_blocks.blocks.generators import normal_form
from autoif_blocks.languages import count_characters, count_words, detector
from autoif_blocks.parsing import find_label, find_lines, find_number, to_bool
from autoif_blocks.prompts import Prompt
from autoif_blocks.teacher import Family, chinese
from autoif_blocks.teacher.families import CHINESE, recognise, recognise_code, recognise_saying, relation
from autoif_blocks.teacher.family import fill_code, fill_wording
from autoif_blocks.teacher.replies import complete
from autoif_blocks.teacher.tasks import task_of

TEXTS = {
    "zh": "春天来了，“月亮”很圆。\n- 一、二；三！",
    "zh-Hant": "請用繁體字回答，𠮷野家。",
    "ja": "これはテストです。カタカナも、ｶﾅも㌔も。",
    "ko": "한국어 문장입니다. 띄어쓰기가 있어요!",
    "ar": "هذا نصٌّ عربيٌّ، من اليمين إلى اليسار؟ ١٢٣",
    "he": "שָׁלוֹם (עולם)",
    "hi": "नमस्ते दुनिया।",
    "th": "สวัสดีชาวโลก",
    "emoji": "👩‍👩‍👧‍👦 🇪🇺 👍🏽 ❤️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "combining": "cafe\u0301 Z̤͔ͧ́ and café, ﬁ, Å",
    "signs": "\u202bשלום\u202c \u200f\u00a0\u3000全角　\u2028line \ufeffend",
}


def test_texts_of_all_scripts_pass_through_all_steps_unharmed(bench: Bench) -> None:
    """Through files, the server and the sandbox, whose functions get what was written, and into chat records."""
    bench.model.answer = lambda prompt: "评分：9" if prompt.startswith("rate") else prompt.partition("|")[2]
    given = [
        {"name": name, "query": text, "instruction": text[::-1],
         "functions": [f"def evaluate(response):\n    return ascii(response) == {ascii(text.strip())!a}"]}
        for name, text in TEXTS.items()
    ]  # fmt: skip
    left = bench.run(
        """
  - {name: answered, block: respond, prompt: "{{ instruction }}|{{ query }}"}
  - {name: verified, block: verify_responses}
  - {name: scored, block: judge_score, prompt: "rate {{ response }}"}
  - {name: chat, block: format_sft, format: messages, user: "{{ query }}|{{ instruction }}", keep: [name, score]}
""",
        given,
    )
    assert {row["metadata"]["name"]: row["metadata"]["score"] for row in left} == dict.fromkeys(TEXTS, 9)
    for row in left:
        text = TEXTS[row["metadata"]["name"]]
        assert [turn["content"] for turn in row["messages"]] == [f"{text}|{text[::-1]}".strip(), text.strip()]


@pytest.mark.parametrize(
    ("text", "characters", "words"),
    [
        ("", 0, 0), ("Two words.", 10, 2), ("It's well-known, e.g. 3.14!", 27, 4), ("a - b", 5, 2),
        ("春天来了。", 5, 4), ("我有3只cat。", 8, 5), ("これはペンです", 7, 7), ("한국어 문장", 6, 2),
        ("สวัสดี", 4, 6), ("هذا نصٌّ", 6, 2), ("👩‍👩‍👧‍👦👍🏽", 2, 0), ("🇪🇺 ok", 4, 1), ("cafe\u0301", 4, 1), ("नमस्ते", 3, 1),
    ],
)  # fmt: skip
def test_lengths_are_those_that_a_reader_counts(text: str, characters: int, words: int) -> None:
    assert (count_characters(text), count_words(text)) == (characters, words)


def test_length_filters_count_so(bench: Bench) -> None:
    step = "\n  - {name: kept, block: keep_length, field: text, max_chars: 5, min_words: 3, max_words: 4}\n"
    given = ["春天来了。", "春天", "春天来了吧", "a b c", "👍🏽👍🏽👍🏽👍🏽 是的人", "一二三👩‍👩‍👧‍👦👩‍👩‍👧‍👦"]
    left = bench.run(step, [{"text": text} for text in given])
    assert {row["text"] for row in left} == {"春天来了。", "a b c", "一二三👩‍👩‍👧‍👦👩‍👩‍👧‍👦"}
    assert {row["reason"] for row in bench.dropped("kept")} == {"too_short", "too_long"}


@pytest.mark.parametrize(
    ("answer", "score"),
    [("评分：8", 8), ("评分: 8分", 8), ("**评分：7.5**", 7.5), ("我给8分。", 8), ("得分：9/10", 9), ("满分十分", None),
     ("评分：80分", None)],
)  # fmt: skip
def test_scores_are_read_in_chinese(answer: str, score: float | None) -> None:
    assert find_number(answer, 0, 10) == score


@pytest.mark.parametrize(
    ("answer", "label"),
    [("蕴含", "蕴含"), ("答案是矛盾。", "矛盾"), ("**中立**", "中立"), ("并不矛盾", None), ("蕴含或者中立", None),
     ("先看两条。\n标签：蕴含", "蕴含"), ("不是矛盾，而是中立", "中立")],
)  # fmt: skip
def test_labels_are_read_where_words_are_not_parted(answer: str, label: str | None) -> None:
    assert find_label(answer, ["蕴含", "中立", "矛盾"]) == label


def test_other_forms_are_read_in_chinese() -> None:
    assert [to_bool(word) for word in ("是", "否", "真", "假", "也许")] == [True, False, True, False, None]
    assert find_lines("以下是指令：\n1、不要用逗号。\n- 以问号结尾。") == ["不要用逗号。", "以问号结尾。"]
    assert normal_form("不要用逗号。") == normal_form("不要用逗号！") == "不要用逗号"


# --- the simulated teacher ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CHINESE, ids=lambda family: family.name)
def test_a_chinese_family_holds_together(family: Family) -> None:
    misses: Counter[str] = Counter()
    for seed in range(10):
        rng = Random(seed)
        params = family.draw(rng)
        for wording in family.wordings:
            reading = recognise(fill_wording(wording, params))
            assert reading is not None, wording
            assert (reading.family.name, reading.params) == (family.name, params)
        for build, truth in ((family.comply, True), (family.violate, False)):
            text = build(chinese.write(chinese.draw_topics(rng), rng, rng.randint(1, 5)), params, rng)
            for template in family.correct:
                assert verdict(compiled(fill_code(template, params)), text) is truth, (params, text, template)
                assert recognise_code(fill_code(template, params), "zh") is not None
            for wrong in family.wrong:
                misses[wrong.code] += verdict(compiled(fill_code(wrong.code, params)), text) is not truth
                saying = fill_wording(wrong.says, params)
                assert recognise_saying(saying), saying
                assert relation(fill_wording(family.wordings[0], params), saying) == wrong.relation
    assert all(misses[wrong.code] for wrong in family.wrong), misses


def prompt(name: str, **fields: object) -> str:
    return Prompt((ROOT / f"pipelines/prompts/zh/{name}.jinja").read_text(encoding="utf-8")).render(fields)


FUNCTION = fill_code(CHINESE[0].correct[0], CHINESE[0].draw(Random(1)))
ASKED = {
    "self_instruct": prompt("self_instruct", demonstrations=["不要使用逗号。", "以问号结尾。"]),
    "verify": prompt("verifiers", instruction="全文不超过80个字。"),
    "back_translate": prompt("back_translate", function=FUNCTION),
    "label": prompt("nli", instruction="不要使用逗号。", item="以问号结尾。"),
    "respond": prompt("respond", instruction="不要使用逗号。", query="怎样给10道菜打分？"),
    "judge": prompt("score", instruction="不要使用逗号。", query="请写3条指令。", response="好的。\n问题：无"),
}


@pytest.mark.parametrize("task", ASKED)
def test_chinese_prompts_are_recognised_and_answered_in_chinese(task: str) -> None:
    assert task_of(ASKED[task]) == task
    answers = [complete(ASKED[task], MODEL, seed, CALM) for seed in range(30)]
    in_chinese = sum(map(chinese.is_chinese, answers)) + sum("\\u" in answer for answer in answers)
    assert in_chinese > 20, answers[:3]


def test_the_chinese_recipe_has_its_own_seeds_queries_and_prompts() -> None:
    seeds = (ROOT / "sample_data/zh/seed_instructions.txt").read_text(encoding="utf-8").splitlines()
    readings = [recognise(seed) for seed in seeds]
    assert {reading.family.name for reading in readings if reading} == {family.name for family in CHINESE}
    assert None not in readings
    lines = (ROOT / "sample_data/zh/queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["query"] for line in lines]
    assert len(set(queries)) == len(queries) >= 40
    codes = Counter(detector().rank(query)[0][0] for query in queries)
    assert codes["zh"] > 30
    recipe = yaml.safe_load((ROOT / "pipelines/zh.yaml").read_text(encoding="utf-8"))
    blocks = [block for step in recipe["steps"] for block in step.get("blocks", [step])]
    named = {Path(block[key]) for block in blocks for key in ("prompt", "path") if key in block}
    assert all("zh" in path.parts for path in named if path.suffix != ".txt" or ".." in path.parts)
