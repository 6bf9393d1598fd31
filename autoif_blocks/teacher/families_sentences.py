"""Families about sentences, paragraphs and lines."""

from __future__ import annotations

from random import Random

from .family import Builder, Family, Params, Wrong, code, one
from .prose import FILLERS, blocks, cut_words, stretch


def _sentences(*shifts: int) -> Builder:
    return lambda text, p, rng: " ".join(stretch(text, max(1, p.n + rng.choice(shifts))))


def _paragraphs(*shifts: int) -> Builder:
    return lambda text, p, rng: "\n\n".join(blocks(text, max(1, p.n + rng.choice(shifts))))


def _lines(*shifts: int) -> Builder:
    return lambda text, p, rng: "\n".join(blocks(text, max(1, p.n + rng.choice(shifts))))


def _brief_sentences(text: str, p: Params, rng: Random) -> str:
    return " ".join(cut_words(s, min(len(s.split()), p.n - rng.choice((0, 0, 1)))) for s in stretch(text, 3))


def _one_long_sentence(text: str, p: Params, rng: Random) -> str:
    kept = _brief_sentences(text, p, rng).split(". ")
    long = " ".join(s.rstrip(".").lower() for s in FILLERS).split()[: p.n + rng.choice((1, 1, 4))]
    return ". ".join([*kept[:-1], " ".join(long).capitalize() + "."])


FAMILIES = (
    Family(
        name="exact_sentences",
        n=(2, 3, 4, 5, 6),
        ease=0.6,
        wordings=(
            "Answer in exactly {n} sentences.",
            "Your answer must consist of exactly {n} sentences.",
            "Write {n} sentences, no more and no less.",
        ),
        comply=_sentences(0),
        violate=_sentences(-1, 1, 1, 2),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    parts = [s for s in re.split(r"(?<=[.!?])\s+", response.strip()) if s]
                    return len(parts) == @n@
            """),
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"[.!?]+(?:\s|$)", response)) == @n@
            """),
            code("""
                def evaluate(response):
                    text = response.replace('!', '.').replace('?', '.')
                    sentences = [s for s in text.split('.') if s.strip()]
                    return len(sentences) == @n@
            """),
        ),
        wrong=(
            Wrong(one("len(response.split('.')) == @n@"), "Use the full stop to split the answer into {n} pieces."),
            Wrong(one("response.count('.') >= @n@"), "Use the full stop {n} times or more."),
            Wrong(one("len(response.splitlines()) == @n@"), "Spread the answer over {n} lines of text."),
        ),
    ),
    Family(
        name="min_sentences",
        n=(3, 4, 5, 6),
        ease=0.75,
        wordings=(
            "Write at least {n} sentences.",
            "Your answer should have {n} or more sentences.",
            "Give an answer of no fewer than {n} sentences.",
        ),
        comply=_sentences(0, 0, 1, 2),
        violate=_sentences(-1, -1, -2),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"[.!?](?:\s|$)", response)) >= @n@
            """),
            code("""
                def evaluate(response):
                    endings = sum(response.count(mark) for mark in '.!?')
                    return endings >= @n@
            """),
            code(r"""
                import re

                def split_sentences(text):
                    return [s for s in re.split(r"[.!?]+", text) if s.strip()]

                def evaluate(response):
                    return len(split_sentences(response)) >= @n@
            """),
        ),
        wrong=(
            Wrong(one("response.count('.') > @n@"), "Write more than {n} sentences."),
            Wrong(one("len(response.split('.')) <= @n@"), "Write fewer than {n} sentences.", "contradiction"),
        ),
    ),
    Family(
        name="sentence_words",
        n=(8, 10, 12, 15),
        ease=0.5,
        wordings=(
            "No sentence may have more than {n} words.",
            "Keep every sentence to {n} words or fewer.",
            "Each sentence must be at most {n} words long.",
        ),
        comply=_brief_sentences,
        violate=_one_long_sentence,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return all(len(s.split()) <= @n@ for s in re.split(r"[.!?]+", response))
            """),
            code("""
                def longest(text):
                    sizes = [len(part.split()) for part in text.replace('?', '.').replace('!', '.').split('.')]
                    return max(sizes)

                def evaluate(response):
                    return longest(response) <= @n@
            """),
            code(r"""
                import re

                def evaluate(response):
                    for sentence in re.split(r"(?<=[.!?])\s+", response.strip()):
                        if len(sentence.split()) > @n@:
                            return False
                    return True
            """),
        ),
        wrong=(
            Wrong(
                one("any(len(s.split()) <= @n@ for s in response.split('. '))"),
                "Write one sentence of up to {n} words.",
            ),
            Wrong(
                one("all(len(s.split()) < @n@ for s in response.split('. '))"),
                "Each sentence must stay under {n} words.",
            ),
            Wrong(
                one("all(len(s) <= @n@ for s in response.split('. '))"), "Each sentence must fit into {n} characters."
            ),
        ),
    ),
    Family(
        name="paragraphs",
        n=(2, 3, 4),
        ease=0.7,
        wordings=(
            "Write exactly {n} paragraphs separated by a blank line.",
            "Divide your answer into exactly {n} paragraphs with an empty line between them.",
            "The answer must have {n} paragraphs, each set apart by a blank line.",
        ),
        comply=_paragraphs(0),
        violate=_paragraphs(-1, 1, 1),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len([p for p in re.split(r"\n\s*\n", response.strip()) if p.strip()]) == @n@
            """),
            code(r"""
                def evaluate(response):
                    paragraphs = [p for p in response.split("\n\n") if p.strip()]
                    return len(paragraphs) == @n@
            """),
            one(r'response.strip().count("\n\n") + 1 == @n@'),
        ),
        wrong=(
            Wrong(one(r'response.count("\n\n") == @n@'), "Leave exactly {n} blank lines in the answer."),
            Wrong(one(r'len(response.split("\n")) == @n@'), "Break the answer into exactly {n} single lines."),
            Wrong(one(r'len(response.split("\n\n")) != @n@'), "Avoid having {n} paragraphs.", "contradiction"),
        ),
    ),
    Family(
        name="lines",
        n=(3, 4, 5, 6),
        ease=0.6,
        wordings=(
            "Write exactly {n} lines of text.",
            "Lay the answer out in exactly {n} lines that are not empty.",
            "Your answer must be {n} lines long, no more and no fewer.",
        ),
        comply=_lines(0),
        violate=_lines(-1, 1, 1),
        correct=(
            one("len([line for line in response.splitlines() if line.strip()]) == @n@"),
            code(r"""
                def evaluate(response):
                    lines = response.strip().split("\n")
                    filled = list(filter(str.strip, lines))
                    return len(filled) == @n@
            """),
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"(?m)^.*\S.*$", response)) == @n@
            """),
        ),
        wrong=(
            Wrong(one(r'response.count("\n") == @n@'), "Use exactly {n} line breaks."),
            Wrong(one("len(response.splitlines()) >= @n@"), "Write {n} lines of text or more."),
            Wrong(
                one("len(response.split('. ')) == @n@"), "Write {n} sentences with a full stop after each.", "neutral"
            ),
        ),
    ),
)
