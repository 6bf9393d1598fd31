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
# A block, what it can do nothing with, and what it can.
BLOCKS = {
    "respond": ("", "yes"),
    "back_translate, max_functions: 1": ("<think>hm", "yes"),
    "converse": ("", "yes"),
    "judge_label, labels: [yes, no]": ("perhaps", "yes"),
    "judge_label, over: items, labels: [yes, no]": ("perhaps", "yes"),
    "judge_score": ("perhaps", "7"),
    "write_verifiers": ("perhaps", '{"func": "def evaluate(response):\\n    return True", "cases": []}'),
    "repair_functions": ("perhaps", NO_COMMA),
}


@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_asks_again_where_nothing_usable_came(bench: Bench, block: str, times: int) -> None:
    useless, useful = BLOCKS[block]
    bench.model.answer = lambda prompt: useful if len(bench.model.bodies) > times else useless
    prompt = "" if block == "converse" else ", prompt: 'Say it.'"
    left = bench.run(f"  - {{name: x, block: {block}{prompt}, reask: 2}}\n", [GIVEN])
    assert len(left) == 1
    assert len(bench.model.bodies) == 1 + times
    assert len({body["seed"] for body in bench.model.bodies}) == 1 + times, "each time another sample"
    assert sum(bench.step("x")["discarded"].values()) >= times


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
