"""`reask`: every block that asks a model asks again where nothing usable came; and one bad answer costs no others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from conftest import Bench, rows, serving_app
from test_blocks import NO_COMMA, cases

from autoif_blocks.errors import RecipeError
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import compact_json

WRONG = "def evaluate(response):\n    return ';' not in response"
GIVEN: dict[str, Any] = {
    "functions": [NO_COMMA, WRONG, NO_COMMA + "  # so"], "cases": cases(("a", True), ("b, c", False)),
    "turns": ["Say it."], "items": ["it"],
}  # fmt: skip
# A block, what it can do nothing with, what it can, and what its prompt must show.
BLOCKS = {
    "repair_functions": ("perhaps", NO_COMMA, "function"),
    "back_translate, max_functions: 1": ("<think>hm", "yes", "function"),
    "converse": ("", "yes", "turn"),
    "judge_label, labels: [yes, no]": ("perhaps", "yes", ""),
    "judge_label, field: other, over: items, labels: [yes, no]": ("perhaps", "yes", "item"),
    "judge_score": ("perhaps", "7", ""),
    "respond, field: answer": ("", "yes", ""),
    "sample_responses, field: answers": ("", "yes", ""),
    "write_verifiers": ("perhaps", '{"func": "def evaluate(response):\\n    return True", "cases": []}', ""),
}


def step(number: int, block: str, shown: str) -> str:
    prompt = f"{number}{{{{ {shown}[:0] }}}}" if shown else str(number)
    return f"  - {{name: s{number}, block: {block}, prompt: '{prompt}', reask: 2}}\n"


@pytest.mark.parametrize("times", [0, 2])
def test_each_block_asks_again_where_nothing_usable_came(bench: Bench, times: int) -> None:
    asked: Counter[str] = Counter()

    def answer(prompt: str) -> str:
        asked[prompt] += 1
        useless, useful, _ = [*BLOCKS.values()][int(prompt)]
        return useful if asked[prompt] > times else useless

    bench.model.answer = answer
    steps = "".join(step(n, block, shown) for n, (block, (_, _, shown)) in enumerate(BLOCKS.items()))
    assert len(bench.run(steps, [GIVEN])) == 1
    assert asked == {str(n): 1 + times for n in range(len(BLOCKS))}
    assert len({(body["messages"][-1]["content"], body["seed"]) for body in bench.model.bodies}) == asked.total()
    for n, block in enumerate(BLOCKS):
        assert sum(bench.step(f"s{n}")["discarded"].values()) >= times, block


@pytest.mark.parametrize("block", [block for block in BLOCKS if BLOCKS[block][2]])
def test_a_prompt_that_asks_the_same_of_all_is_refused(bench: Bench, block: str) -> None:
    shown = BLOCKS[block][2]
    with pytest.raises(RecipeError, match=rf"put {{{{ {shown} }}}} into it"):
        Recipe.load(bench.recipe(step(0, block, ""), [GIVEN]))
    Recipe.load(bench.recipe(step(0, block, shown), [GIVEN]))


def test_a_block_that_would_not_ask_again_says_so(bench: Bench) -> None:
    with pytest.raises(RecipeError, match="raise n"):
        Recipe.load(bench.recipe("  - {name: x, block: self_instruct, prompt: p, reask: 1}\n", [{"instruction": "i"}]))


def cut(counted: Counter[str]) -> web.Application:
    """A server that cuts the first of all answers off, and refuses what it is told to refuse."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        said = body["messages"][-1]["content"]
        counted[said] += 1
        if "refuse" in said:
            return web.json_response({"error": {"message": "no"}}, status=400)
        reason = "length" if sum(counted.values()) == 1 else "stop"
        choices = [
            {"index": n, "message": {"role": "assistant", "content": "yes"}, "finish_reason": reason}
            for n in range(body.get("n", 1))
        ]
        return web.Response(body=compact_json({"choices": choices, "usage": {}}), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    return app


@pytest.mark.parametrize(
    ("block", "field", "left", "reason"),
    [
        ("converse, n: 4", "samples", 3, "cut_off"),
        ("back_translate, prompt: '{{ function }}', max_functions: 3", "back_translations", 2, "cut_off"),
        ("back_translate, prompt: '{{ function }}{% if \";\" in function %}refuse{% endif %}', on_length: keep",
         "back_translations", 2, "request_refused"),
        ("judge_label, labels: [yes, no], prompt: p, on_length: discard", "label_answers", 1, "cut_off"),
    ],
)  # fmt: skip
def test_one_bad_answer_costs_no_others(bench: Bench, block: str, field: str, left: int, reason: str) -> None:
    with serving_app(cut(Counter())) as url:
        path = bench.recipe(f"  - {{name: x, block: {block}}}\n", [GIVEN])
        bench.result = Recipe.load(path, [f"models.teacher.base_url={url}", "models.teacher.max_concurrency=1"]).run()
    assert bench.step("x")["dropped"] == {}
    assert bench.step("x")["discarded"] == {reason: 1}
    (row,) = rows(bench.out / "x.jsonl")
    assert len(row[field]) == left
