"""The simulated model: a completion from nothing but the conversation's text, the model's name and a seed.

`complete` asks `tasks` what is wanted and answers it as language models do: mostly right, in several forms, now and
then wrong, and at the configured rates unusable or hostile. The same arguments always give the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from statistics import fmean

from . import chinese, composed, tasks
from .chance import Rates, digest, share
from .families import (
    CATALOGUE_SIZE,
    CHINESE,
    FAMILIES,
    catalogue,
    recognise,
    recognise_code,
    relation,
)
from .family import fill_wording
from .hostile import HOSTILE_TEXTS
from .prose import topic_words, write
from .verifiers import repair, verifiers

LABELS, CHINESE_LABELS = tasks.LABELS
LABEL_NOISE = 0.1

_UNCHECKABLE = (
    "Be inspiring.",
    "Sound like an old friend.",
    "Make the answer memorable.",
    "Write with warmth and a touch of humour.",
    "Be as clear as you can.",
    "Use vivid images.",
    "Answer like an expert in the field.",
    "Keep a positive tone throughout.",
    "Make the reader curious.",
    "Avoid sounding arrogant.",
)
_UNCHECKABLE_CHINESE = ("写得生动一些。", "语气要温暖。", "让人读了还想读。", "像老朋友一样说话。", "尽量写得清楚。")
_VAGUE = (
    "Follow the rule that the function checks.",
    "Make sure that the answer has the right form.",
    "The text should meet a certain condition about its words.",
    "Write an answer that passes the check.",
)
_TRAILING = (
    "I hope these are useful!",
    "Let me know if you would like more.",
    "These instructions can all be checked by a short Python function.",
)
# How often the judge gives each score from 0 to 10; 38% lie above 7.
_SCORES = (2, 2, 3, 5, 8, 10, 14, 18, 20, 13, 5)


def complete(text: str, model: str, seed: int, rates: Rates) -> str:
    """The completion for a conversation's text and an effective seed."""
    rng = Random(digest(text, model, str(seed)))
    reply = _TASKS[_task_of(text)](text, rng, rates)
    if rng.random() < rates.hostile / 5:
        reply += rng.choice((" ", "\n")) + rng.choice(HOSTILE_TEXTS)
    return reply


_task_of = lru_cache(maxsize=4_096)(tasks.task_of)


def _self_instruct(text: str, rng: Random, rates: Rates) -> str:
    demonstrations = tasks.demonstrations_of(text)
    in_chinese = chinese.is_chinese(text)
    families, uncheckable = (CHINESE, _UNCHECKABLE_CHINESE) if in_chinese else (FAMILIES, _UNCHECKABLE)
    lines = []
    for _ in range(tasks.count_of(text)):
        roll = rng.random()
        if roll < 0.06:
            line = rng.choice(uncheckable)
        elif roll < 0.12 and demonstrations:
            line = rng.choice(demonstrations)
        elif roll < 0.14:
            line = ""
        else:
            line = catalogue(int(CATALOGUE_SIZE * rng.random() ** 4), families)
        lines.append(line)
    style = rng.random()
    if style < 0.08:
        body = [f"{i}. {line}" for i, line in enumerate(lines, 1)]
    elif style < 0.12:
        body = [f"* {line}" for line in lines]
    else:
        body = [f"- {line}" for line in lines]
    if rng.random() < 0.1:
        body.insert(0, "Here are the new instructions:\n")
    if rng.random() < 0.1:
        body += ["", rng.choice(_TRAILING)]
    return "\n".join(body)


def _verify(text: str, rng: Random, rates: Rates) -> str:
    return verifiers(tasks.instruction_of(text) or text, rng, rates)


def _repair(text: str, rng: Random, rates: Rates) -> str:
    function = tasks.code_of(text)
    # The answers that follow the function may hold anything, other instructions too.
    before = text.partition(function)[0]
    return repair(tasks.instruction_of(before) or tasks.instruction_of(text) or text, function, rng, rates)


def _back_translate(text: str, rng: Random, rates: Rates) -> str:
    function = tasks.code_of(text)
    asked_in = "zh" if chinese.is_chinese(text.replace(function, "")) else "en"
    reading = recognise_code(function, asked_in)
    if reading is None or rng.random() < 0.05:
        return rng.choice(_VAGUE)
    template = reading.wrong.says if reading.wrong else rng.choice(reading.family.wordings)
    sentence = fill_wording(template, reading.params)
    form = rng.random()
    if form < 0.06:
        return f'"{sentence}"'
    if form < 0.1:
        return f"Instruction: {sentence}"
    return f"{sentence}\n" if form < 0.15 else sentence


def _label(text: str, rng: Random, rates: Rates) -> str:
    first, second = tasks.pair_of(text)
    label: str | None = relation(first, second)
    if label is None:
        label = "neutral" if share(first, second) < 0.7 else "entailment"
    if rng.random() < LABEL_NOISE:
        label = rng.choice([other for other in LABELS if other != label])
    if chinese.is_chinese(text) and all(word in text for word in CHINESE_LABELS):
        label = CHINESE_LABELS[LABELS.index(label)]
        return rng.choice((label, label, label, f"{label}。", f"**{label}**", f"答案是{label}。", f"标签：{label}"))
    if rng.random() < rates.malformed / 5:
        return rng.choice(("I cannot tell.", "Either entailment or contradiction.", "", "It depends on the answer."))
    form = rng.random()
    if form < 0.7:
        return label
    return rng.choice(
        (
            f"{label.capitalize()}.",
            f"**{label}**",
            f"The answer is {label}",
            label.upper(),
            f" {label}\n",
            f"Label: {label}",
        )
    )


def _respond(text: str, rng: Random, rates: Rates) -> str:
    if rng.random() < rates.malformed / 10:
        return rng.choice(("", " \n", "I am sorry, but I cannot help with that."))
    if len(constraints := composed.constraints_of(text)) > 1:
        readings = list(constraints.values())
        in_chinese = any(reading.family.language == "zh" for reading in readings)
        prose = _prose(composed.without_constraints(text), in_chinese, rng)
        return composed.answer(prose, readings, fmean(map(ease, constraints)), rng)
    query, instruction = tasks.query_of(text), tasks.instruction_of(text)
    reading = recognise(instruction) if instruction else None
    prose = _prose(query, reading is not None and reading.family.language == "zh", rng)
    if instruction is None or reading is None:
        return prose
    build = reading.family.comply if rng.random() < ease(instruction) else reading.family.violate
    return build(prose, reading.params, rng)


def _prose(query: str, in_chinese: bool, rng: Random) -> str:
    if in_chinese or chinese.is_chinese(query):
        return chinese.write(chinese.topics_in(query), rng, rng.randint(2, 5))
    return write(topic_words(query), rng, rng.randint(2, 5))


def ease(instruction: str) -> float:
    """How often the simulated model manages to follow an instruction: its family's ease, and a little of its own."""
    reading = recognise(instruction)
    own = (share("ease", instruction) - 0.5) * 0.3
    return min(0.85, max(0.3, (reading.family.ease if reading else 0.6) + own))


def _judge(text: str, rng: Random, rates: Rates) -> str:
    low, high = tasks.range_of(text)
    quality = Random(digest("quality", tasks.response_of(text)))
    tenths = quality.choices(range(11), _SCORES)[0] + rng.choices((-1, 0, 1), (1, 8, 1))[0]
    score = low + round((high - low) * max(0, min(10, tenths)) / 10)
    if rng.random() < rates.malformed / 5:
        return rng.choice(("The response is rather good.", "Score: high", "", "N/A"))
    form = rng.random()
    if "评分" in text:
        forms = (f"评分：{score}/{high}", f"评分：{score}分", f"**评分：{score}**", f"{score}", f"我给{score}分。")
        return f"评分：{score}" if form < 0.7 else rng.choice(forms)
    if form < 0.7:
        return f"Score: {score}"
    return rng.choice(
        (
            f"Score: {score}/{high}",
            f"**Score: {score}**",
            f"Score: {score}.",
            f"{score}",
            f"I would give this an {score} out of {high}.",
            f"Score: {score}.0",
            f"The response answers the query.\n\nScore: {score}",
            f"score : {score}",
        )
    )


def _chat(text: str, rng: Random, rates: Rates) -> str:
    if chinese.is_chinese(text):
        return chinese.write(chinese.topics_in(text), rng, rng.randint(1, 3))
    return write(topic_words(text), rng, rng.randint(1, 3))


_TASKS: dict[tasks.TaskName, Callable[[str, Random, Rates], str]] = {
    "self_instruct": _self_instruct,
    "verify": _verify,
    "repair": _repair,
    "back_translate": _back_translate,
    "label": _label,
    "respond": _respond,
    "judge": _judge,
    "chat": _chat,
}
