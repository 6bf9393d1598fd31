"""Answers to "write a function and test cases" and "fix this function": good, wrong, and such as do not parse."""

from __future__ import annotations

import json
from random import Random

from . import chinese
from .chance import Rates, digest, share
from .families import Reading, recognise, recognise_code
from .family import Wrong, code, fill_code, one
from .hostile import HOSTILE_FUNCTIONS
from .prose import TOPICS, write

# An instruction that is misread: so many of its functions share the mistake, and so many of its cases follow it.
SHARED_MISTAKE = 0.7
MISREAD_OUTPUTS = 0.3
# What a model does with a function that it shall repair.
REPAIRED = 0.6
SPOILT = 0.25

# For instructions that no code can check: each is plausible, and they disagree with one another.
_GUESSES = (
    one("len(response) > 80"),
    one("len(response.split()) < 12"),
    one("'!' in response"),
    one("response.endswith('.')"),
    one("'you' in response.lower()"),
    one("response.count('.') > 2"),
    one("any(word in response.lower() for word in ('best', 'great', 'easier', 'good'))"),
    one("not response.lower().startswith('the')"),
    one("True"),
    code("""
        def evaluate(response):
            words = response.lower().split()
            return len(set(words)) / max(1, len(words)) > 0.9
    """),
)
# Each is a check that a model writes when it does not know what to check.
_VACUOUS = (
    one("True"),
    one("isinstance(response, str)"),
    one("len(response.strip()) > 0"),
    one("bool(response)"),
    code("""
        def evaluate(response):
            if not response:
                return False
            return True
    """),
    code("""
        def evaluate(response):
            words = response.split()
            return len(words) >= 1
    """),
)
_HOSTILE = tuple(HOSTILE_FUNCTIONS.values())
_DOCSTRINGS = ("Check whether the response follows the instruction.", "Return True if the answer is as wanted.")


def verifiers(instruction: str, rng: Random, rates: Rates) -> str:
    """The completion for one instruction."""
    reading = recognise(instruction)
    # The share of wrong functions is an instruction's own: some are easy to check, some are not.
    wrong = 2 * rates.wrong * share("wrong functions", instruction)
    misread = _misread(instruction, reading, rates)
    if rng.random() < rates.hostile:
        function = rng.choice(_HOSTILE)
    elif rates.vacuous and rng.random() < rates.vacuous:
        function = _in_style(rng.choice(_VACUOUS), rng)
    elif reading and misread and rng.random() < SHARED_MISTAKE:
        function = _in_style(fill_code(misread.code, reading.params), rng)
    else:
        function = _function(reading, rng, wrong)
    answer: dict[str, object] = {
        "func": function,
        "cases": _cases(reading, rng, MISREAD_OUTPUTS if misread else rates.wrong_output),
    }
    if rng.random() < rates.malformed:
        return _malformed(answer, rng)
    if rng.random() < 0.02:
        answer["explanation"] = "The function looks at the text only."
    return _dressed(json.dumps(answer, indent=rng.choice((None, None, 2))), rng)


def repair(instruction: str, function: str, rng: Random, rates: Rates) -> str:
    """The completion for a function that is wrong about some cases: better, as wrong as before, or spoilt."""
    reading = recognise(instruction)
    written = recognise_code(function, reading.family.language) if reading else None
    roll = rng.random()
    if reading is None:
        fixed = rng.choice(_GUESSES)
    elif roll < REPAIRED and not (written and written.wrong is None):
        fixed = _in_style(fill_code(rng.choice(reading.family.correct), reading.params), rng)
    elif roll > 1 - SPOILT:
        fixed = _in_style(fill_code(rng.choice(reading.family.wrong).code, reading.params), rng)
    else:
        fixed = function
    if rng.random() < rates.malformed:
        return rng.choice(("", "The function is right as it is.", fixed.replace("evaluate", "check"), fixed[:-20]))
    form = rng.random()
    if form < 0.75:
        return f"```python\n{fixed}```"
    if form < 0.85:
        return f"The comparison was wrong. Here is the corrected function:\n\n```python\n{fixed}```"
    return json.dumps({"func": fixed}) if form < 0.95 else fixed


def _misread(instruction: str, reading: Reading | None, rates: Rates) -> Wrong | None:
    """The mistake that the functions of an instruction share, if the model has misread it."""
    if reading is None or share("misread", instruction) >= rates.misread:
        return None
    return reading.family.wrong[digest("mistake", instruction) % len(reading.family.wrong)]


def _function(reading: Reading | None, rng: Random, wrong: float) -> str:
    if reading is None:
        return rng.choice(_GUESSES)
    family = reading.family
    template = rng.choice(family.wrong).code if rng.random() < wrong else rng.choice(family.correct)
    return _in_style(fill_code(template, reading.params), rng)


def _in_style(text: str, rng: Random) -> str:
    """The same function with annotations or a docstring, as models like to write them."""
    style = rng.random()
    if style < 0.25:
        text = text.replace("def evaluate(response):", "def evaluate(response: str) -> bool:")
    if 0.15 < style < 0.35:
        head, body = text.split("def evaluate(", 1)
        signature, rest = body.split("\n", 1)
        text = f'{head}def evaluate({signature}\n    """{rng.choice(_DOCSTRINGS)}"""\n{rest}'
    return text


def _cases(reading: Reading | None, rng: Random, wrong_output: float) -> list[dict[str, object]]:
    verdicts = [True, False, rng.random() < 0.5]
    rng.shuffle(verdicts)
    cases: list[dict[str, object]] = []
    for verdict in verdicts:
        if reading and reading.family.language == "zh":
            prose = chinese.write(chinese.draw_topics(rng), rng, rng.randint(1, 3))
        else:
            prose = write(rng.choice(TOPICS), rng, rng.randint(1, 3))
        if reading:
            build = reading.family.comply if verdict else reading.family.violate
            prose = build(prose, reading.params, rng)
        shown = verdict if rng.random() >= wrong_output else not verdict
        cases.append({"input": prose, "output": _output(shown, rng)})
    return cases


def _output(verdict: bool, rng: Random) -> object:
    """A verdict as models write it: mostly a boolean, often its name, now and then something else."""
    roll = rng.random()
    if roll < 0.68:
        return verdict
    if roll < 0.95:
        return rng.choice((str(verdict), str(verdict).lower()))
    return rng.choice((("no", "yes")[verdict], int(verdict), None, "maybe"))


def _dressed(text: str, rng: Random) -> str:
    """A JSON answer in one of the forms that readers must cope with."""
    roll = rng.random()
    if roll < 0.5:
        return text
    if roll < 0.75:
        return f"```json\n{text}\n```"
    if roll < 0.83:
        return f"```\n{text}\n```"
    if roll < 0.92:
        return f"Here is the function with its test cases:\n\n{text}\n\nIt uses the standard library only."
    return f"<think>The function {{evaluate}} gets the text.\nI need three cases.</think>\n\n{text}"


def _malformed(answer: dict[str, object], rng: Random) -> str:
    """An answer that cannot be used as it is."""
    text, function = json.dumps(answer), str(answer["func"])
    return rng.choice(
        (
            text[: len(text) * rng.randint(3, 8) // 10],
            str(answer),
            json.dumps({"function": function}),
            json.dumps({"func": function}),
            json.dumps({"cases": answer["cases"]}),
            json.dumps({**answer, "func": function.replace("evaluate", "check")}),
            json.dumps({**answer, "func": function.replace(":\n", "\n", 1)}),
            json.dumps({**answer, "func": ""}),
            json.dumps({**answer, "cases": "see above"}),
            json.dumps([function, answer["cases"]]),
            text.replace("\\n", "\n"),
            text[:-1] + ",}",
            f"```python\n{function}```",
            "I am sorry, but I cannot write this function.",
            "",
        )
    )
