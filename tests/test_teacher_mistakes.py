"""The simulated teacher's mistakes, each at the rate that was chosen, and how it repairs a function."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from test_teacher import CALM, MODEL, PROMPTS, ROOT, SEEDS, compiled, parsed, verdict

from autoif_blocks.parsing import find_code, find_object
from autoif_blocks.prompts import Prompt
from autoif_blocks.teacher.chance import Rates
from autoif_blocks.teacher.families import Reading, recognise, recognise_code
from autoif_blocks.teacher.family import fill_code
from autoif_blocks.teacher.replies import complete
from autoif_blocks.teacher.tasks import task_of

REPAIR = Prompt((ROOT / "pipelines/prompts/repair.jinja").read_text(encoding="utf-8"))


def read(instruction: str) -> Reading:
    reading = recognise(instruction)
    assert reading is not None
    return reading


def written(instruction: str, rates: Rates, count: int = 12) -> list[tuple[str, list[tuple[str, object]]]]:
    """Functions with their cases as (input, output)."""
    prompt = PROMPTS["write_verifiers"].render(instruction=instruction)
    answers = (parsed(complete(prompt, MODEL, seed, rates)) for seed in range(count))
    return [(answer["func"], [(c["input"], c["output"]) for c in answer["cases"]]) for answer in answers if answer]


def wrong_functions(rates: Rates) -> Counter[bool]:
    found: Counter[bool] = Counter()
    for instruction in SEEDS[::2]:
        for function, _ in written(instruction, rates):
            reading = recognise_code(function)
            found[reading is None or reading.wrong is not None] += 1
    return found


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.3, 0.2, 0.4), (0.45, 0.35, 0.55)])
def test_functions_are_wrong_as_often_as_asked(rate: float, low: float, high: float) -> None:
    found = wrong_functions(Rates(malformed=0, hostile=0, wrong=rate))
    assert low <= found[True] / found.total() <= high


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.2, 0.12, 0.28)])
def test_cases_are_wrong_as_often_as_asked(rate: float, low: float, high: float) -> None:
    wrong = total = 0
    for instruction in SEEDS[::3]:
        reading = read(instruction)
        truth = compiled(fill_code(reading.family.correct[0], reading.params))
        for _, pairs in written(instruction, Rates(malformed=0, hostile=0, wrong_output=rate)):
            told = [(text, output) for text, output in pairs if isinstance(output, bool)]
            wrong += sum(verdict(truth, text) is not output for text, output in told)
            total += len(told)
    assert low <= wrong / total <= high


def test_functions_of_a_misread_instruction_share_a_mistake() -> None:
    shared = 0
    for instruction in SEEDS:
        readings = [recognise_code(function) for function, _ in written(instruction, Rates(0, 0, misread=1, wrong=0))]
        mistakes = Counter(reading.wrong.code for reading in readings if reading and reading.wrong)
        shared += len(mistakes) == 1 and 0.4 < mistakes.total() / len(readings) < 0.95
    assert shared > 0.8 * len(SEEDS)  # a few wrong functions read as another family's right one
    some = [wrong_functions(Rates(0, 0, misread=rate, wrong=0))[True] for rate in (0, 0.3, 1)]
    assert 0 == some[0] < some[1] < some[2]


def test_some_functions_accept_whatever_there_is() -> None:
    functions = [function for function, _ in written(SEEDS[0], Rates(0, 0, wrong=0, vacuous=1))]
    assert len(set(functions)) > 4
    assert all(verdict(compiled(function), text) for function in functions for text in ("x", "Two words.", "1\n2"))


def repairs(instruction: str, function: str, rates: Rates = CALM) -> list[str]:
    failures = [{"input": "Instruction: none", "expected": True, "got": False}]
    prompt = REPAIR.render({"instruction": instruction, "function": function, "failures": failures})
    assert task_of(prompt) == "repair"
    return [complete(prompt, MODEL, seed, rates) for seed in range(60)]


def code_in(answer: str) -> str:
    found = find_object(answer, "func")
    return str(found["func"]) if found else find_code(answer)


def test_a_wrong_function_is_often_repaired_and_not_always() -> None:
    found: Counter[str] = Counter()
    for instruction in SEEDS[::4]:
        reading = read(instruction)
        function = fill_code(reading.family.wrong[0].code, reading.params)
        for answer in repairs(instruction, function):
            again = recognise_code(code_in(answer))
            same = code_in(answer).split() == function.split()
            found["right" if again and again.wrong is None else "same" if same else "wrong"] += 1
    assert 0.5 < found["right"] / found.total() < 0.75
    assert min(found["same"], found["wrong"]) > 10


def test_a_right_function_may_be_spoilt_by_a_repair() -> None:
    reading = read(SEEDS[0])
    answers = repairs(SEEDS[0], fill_code(reading.family.correct[0], reading.params))
    readings = [recognise_code(code_in(answer)) for answer in answers]
    spoilt = sum(again is not None and again.wrong is not None for again in readings)
    assert 5 < spoilt < 30


def test_what_no_code_can_check_is_guessed_at_again() -> None:
    answers = repairs("Be inspiring.", "def evaluate(response):\n    return len(response) > 80\n")
    assert len({json.dumps(answer) for answer in answers}) > 8
    assert any(
        "evaluate" not in answer for answer in repairs("Be inspiring.", "def evaluate(r):\n    return r\n", Rates(1, 0))
    )
