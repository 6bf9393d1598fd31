"""Small changes to a text, each of which breaks some instructions: who checks one of these must notice.

Each is a function of the text and a random generator, and gives the text back where there is nothing to change. They
know no instruction, and no language: where words are not parted by spaces a character counts as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

import regex

from .languages import UNSPACED
from .records import seeded_random

Perturbation = Callable[[str, Random], str]
Graft = Callable[[str, str, Random], str]

_BULLET = re.compile(r"[ \t]*(?:[-*+•]|\d+[.)、])[ \t]*\S")
_SENTENCE = re.compile(r"[^.!?。！？؟\n]*[.!?。！？؟]+[\"'”’）)]*[ \t]*|[^.!?。！？؟\n]+|\n+")
_WORD = regex.compile(rf"[{UNSPACED}]\s*|[^\s{UNSPACED}]+\s*|\s+")
_MARKS = ".!?。！？؟"
_WORDS = ("something", "quickly", "blue", "however", "table")


def _without_one(pieces: Sequence[str], rng: Random, among: Iterable[int]) -> str:
    candidates = list(among)
    left_out = rng.choice(candidates) if candidates else -1
    return "".join(piece for i, piece in enumerate(pieces) if i != left_out)


def _words(text: str) -> list[str]:
    """The words with the space behind each."""
    found: list[str] = _WORD.findall(text)
    return found


def _sentences(text: str) -> list[str]:
    return _SENTENCE.findall(text)


def _paragraphs(text: str) -> list[str]:
    return re.split(r"(?<=\n\n)(?!\n)", text)


def drop_word(text: str, rng: Random) -> str:
    words = _words(text)
    return _without_one(words, rng, range(len(words)))


def drop_first_word(text: str, rng: Random) -> str:
    return "".join(_words(text)[1:])


def drop_last_word(text: str, rng: Random) -> str:
    return "".join(_words(text)[:-1]).rstrip()


def add_word(text: str, rng: Random) -> str:
    words = _words(text)
    where = rng.randrange(len(words) + 1)
    return "".join([*words[:where], rng.choice(_WORDS) + " ", *words[where:]])


def repeat_word(text: str, rng: Random) -> str:
    words = _words(text)
    where = rng.randrange(len(words)) if words else 0
    return "".join([*words[:where], *(word.rstrip() + " " for word in words[where : where + 1]), *words[where:]])


def drop_character(text: str, rng: Random) -> str:
    where = rng.randrange(len(text)) if text else 0
    return text[:where] + text[where + 1 :]


def drop_sentence(text: str, rng: Random) -> str:
    pieces = _sentences(text)
    return _without_one(pieces, rng, (i for i, piece in enumerate(pieces) if piece.strip()))


def repeat_sentence(text: str, rng: Random) -> str:
    pieces = [piece.strip() for piece in _sentences(text) if piece.strip()]
    return f"{text} {rng.choice(pieces)}" if pieces else text


def drop_bullet(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True)
    return _without_one(lines, rng, (i for i, line in enumerate(lines) if _BULLET.match(line)))


def add_bullet(text: str, rng: Random) -> str:
    return f"{text}\n- {rng.choice(_WORDS)}"


def drop_paragraph(text: str, rng: Random) -> str:
    paragraphs = _paragraphs(text)
    return _without_one(paragraphs, rng, range(len(paragraphs))) if len(paragraphs) > 1 else text


def repeat_paragraph(text: str, rng: Random) -> str:
    return f"{text}\n\n{rng.choice(_paragraphs(text)).strip()}"


def join_lines(text: str, rng: Random) -> str:
    return " ".join(text.split())


def split_lines(text: str, rng: Random) -> str:
    return "\n".join(piece.strip() for piece in _sentences(text) if piece.strip())


def upper_case(text: str, rng: Random) -> str:
    return text.upper()


def lower_case(text: str, rng: Random) -> str:
    return text.lower()


def swap_case_of_word(text: str, rng: Random) -> str:
    words = _words(text)
    where = rng.randrange(len(words)) if words else 0
    return "".join(word.swapcase() if i == where else word for i, word in enumerate(words))


def drop_digits(text: str, rng: Random) -> str:
    return re.sub(r"\d", "", text)


def add_number(text: str, rng: Random) -> str:
    return add_word(text, rng) if not text else f"{rng.randrange(2, 100)} {text}"


def add_comma(text: str, rng: Random) -> str:
    return re.sub(r"(\w)(\s|\W*\Z)", r"\1,\2", text, count=1)


def drop_marks(text: str, rng: Random) -> str:
    return re.sub(r"[^\w\s]", "", text)


def drop_one_mark(text: str, rng: Random) -> str:
    return _without_one(text, rng, (i for i, character in enumerate(text) if re.match(r"[^\w\s]", character)))


def repeat_one_mark(text: str, rng: Random) -> str:
    marks = [i for i, character in enumerate(text) if re.match(r"[^\w\s]", character)]
    where = rng.choice(marks) if marks else 0
    return text[:where] + text[where : where + 1] * bool(marks) + text[where:]


def change_end(text: str, rng: Random) -> str:
    end = text.rstrip()
    return end.rstrip(_MARKS) + ("." if end[-1:] in ("!", "?", "？", "！") else "!")


def exclaim(text: str, rng: Random) -> str:
    return re.sub(r"[.。]", "!", text)


def ask(text: str, rng: Random) -> str:
    return re.sub(r"[.。!！]", "?", text)


def preface(text: str, rng: Random) -> str:
    return f"Sure, here is the answer:\n\n{text}"


def postscript(text: str, rng: Random) -> str:
    return f"{text}\n\nLet me know if I can help with anything else."


def first_half(text: str, rng: Random) -> str:
    return text[: len(text) // 2].rstrip()


def second_half(text: str, rng: Random) -> str:
    return text[len(text) // 2 :].lstrip()


def clip_words(text: str, rng: Random) -> str:
    return re.sub(r"(\w{4})\w+", r"\1", text)


def twice(text: str, rng: Random) -> str:
    return f"{text} {text}"


def reverse_sentences(text: str, rng: Random) -> str:
    return " ".join(piece.strip() for piece in reversed(_sentences(text)) if piece.strip())


PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.__name__: perturbation
    for perturbation in (
        drop_word, drop_first_word, drop_last_word, add_word, repeat_word, drop_character,
        drop_sentence, repeat_sentence, reverse_sentences, first_half, second_half, clip_words, twice,
        drop_bullet, add_bullet, drop_paragraph, repeat_paragraph, join_lines, split_lines,
        upper_case, lower_case, swap_case_of_word, drop_digits, add_number,
        add_comma, drop_marks, drop_one_mark, repeat_one_mark, change_end, exclaim, ask, preface, postscript,
    )
}  # fmt: skip


def graft_sentence(text: str, other: str, rng: Random) -> str:
    """A sentence of the other text somewhere among the sentences of this one."""
    own = [piece.strip() for piece in _sentences(text) if piece.strip()]
    foreign = [piece.strip() for piece in _sentences(other) if piece.strip()]
    where = rng.randrange(len(own) + 1)
    return " ".join([*own[:where], rng.choice(foreign), *own[where:]]) if foreign else text


def append_text(text: str, other: str, rng: Random) -> str:
    """The other text behind this one: what must not be there at all shows best."""
    return f"{text}\n{other}"


GRAFTS: dict[str, Graft] = {graft.__name__: graft for graft in (graft_sentence, append_text)}


def mutants(text: str, others: Sequence[str] = (), names: Iterable[str] | None = None) -> dict[str, str]:
    """The texts that the perturbations make of this one, each with the name of the first that makes it.

    They depend on the arguments alone. A perturbation that leaves the text as it is makes none; those of `GRAFTS` make
    one with each of the other texts.
    """
    made: dict[str, str] = {}
    for name in names if names is not None else (*PERTURBATIONS, *GRAFTS):
        rng = seeded_random(name, text)
        if name in PERTURBATIONS:
            found = [PERTURBATIONS[name](text, rng)]
        else:
            found = [GRAFTS[name](text, other, rng) for other in others if other != text]
        for mutant in found:
            if mutant != text:
                made.setdefault(mutant, name)
    return made
