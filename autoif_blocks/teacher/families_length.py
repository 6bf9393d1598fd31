"""Families about length: words and characters."""

from __future__ import annotations

from random import Random

from .family import Builder, Family, Params, Wrong, code, one
from .prose import cut_chars, cut_words


def _words(*shifts: int) -> Builder:
    """A text of n words plus one of the shifts; zero and one are there for the functions that are off by one."""
    return lambda text, p, rng: cut_words(text, max(1, p.n + rng.choice(shifts)))


def _between(text: str, p: Params, rng: Random) -> str:
    return cut_words(text, rng.choice((p.n, p.m, (p.n + p.m) // 2)))


def _outside(text: str, p: Params, rng: Random) -> str:
    return cut_words(text, rng.choice((p.n - 1, p.m + 1, p.n // 2, p.m + 9)))


FAMILIES = (
    Family(
        name="min_words",
        n=(25, 30, 40, 50, 60, 80),
        ease=0.75,
        clashes=("max_words",),
        wordings=(
            "Write at least {n} words.",
            "Your answer must have no fewer than {n} words.",
            "Use {n} words or more in your answer.",
            "Make the answer at least {n} words long.",
        ),
        comply=_words(0, 0, 1, 6, 15),
        violate=_words(-1, -1, -3, -10),
        correct=(
            one("len(response.split()) >= @n@"),
            code(r"""
                import re

                def evaluate(response):
                    words = re.findall(r"\b\w+\b", response)
                    return len(words) >= @n@
            """),
            code("""
                def count_words(text):
                    total = 0
                    for token in text.split():
                        if any(ch.isalnum() for ch in token):
                            total += 1
                    return total

                def evaluate(response):
                    return count_words(response) >= @n@
            """),
        ),
        wrong=(
            Wrong(one("len(response.split()) > @n@"), "Write more than {n} words."),
            Wrong(one("len(response) >= @n@"), "Write at least {n} characters."),
            Wrong(one("len(response.split()) < @n@"), "Write fewer than {n} words.", "contradiction"),
        ),
    ),
    Family(
        name="max_words",
        n=(15, 20, 30, 40, 50, 75),
        ease=0.65,
        clashes=("min_words",),
        wordings=(
            "Use at most {n} words.",
            "Keep the whole answer to {n} words or fewer.",
            "Do not write more than {n} words.",
            "The answer may not be longer than {n} words.",
        ),
        comply=_words(0, 0, -1, -6),
        violate=_words(1, 1, 2, 12),
        correct=(
            one("len(response.split()) <= @n@"),
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\w+", response)) <= @n@
            """),
            code("""
                def evaluate(response):
                    words = [w for w in response.split() if w.strip()]
                    if len(words) > @n@:
                        return False
                    return True
            """),
        ),
        wrong=(
            Wrong(one("len(response.split()) < @n@"), "Stay below {n} words."),
            Wrong(one("len(response) <= @n@"), "Keep the answer within {n} characters in total."),
            Wrong(one("response.count(' ') >= @n@"), "Write a text with {n} spaces or more.", "contradiction"),
        ),
    ),
    Family(
        name="word_range",
        n=(20, 30, 40, 60),
        gap=(10, 20, 30),
        ease=0.55,
        wordings=(
            "Write between {n} and {m} words.",
            "The answer should be {n} to {m} words long.",
            "Keep the length of your answer from {n} up to {m} words.",
        ),
        comply=_between,
        violate=_outside,
        correct=(
            one("@n@ <= len(response.split()) <= @m@"),
            code("""
                def evaluate(response):
                    count = len(response.strip().split())
                    return count >= @n@ and count <= @m@
            """),
            code(r"""
                import re

                LOW, HIGH = @n@, @m@

                def evaluate(response):
                    return LOW <= len(re.findall(r"\S+", response)) <= HIGH
            """),
        ),
        wrong=(
            Wrong(one("@n@ < len(response.split()) < @m@"), "Write more than {n} but fewer than {m} words."),
            Wrong(one("len(response.split()) in range(@n@, @m@)"), "Write from {n} up to but not including {m} words."),
            Wrong(one("len(response.split()) >= @n@ or len(response.split()) <= @m@"), "Write any number of words."),
        ),
    ),
    Family(
        name="max_chars",
        n=(100, 140, 160, 200, 280, 300),
        ease=0.55,
        wordings=(
            "Use no more than {n} characters, spaces included.",
            "The answer must fit into {n} characters.",
            "Keep your answer to a maximum of {n} characters.",
        ),
        comply=lambda text, p, rng: cut_chars(text, p.n - rng.choice((0, 0, 1, 20))),
        violate=lambda text, p, rng: cut_chars(text, p.n + rng.choice((1, 1, 2, 30))),
        correct=(
            one("len(response) <= @n@"),
            code("""
                MAX_CHARS = @n@

                def evaluate(response):
                    return not len(response) > MAX_CHARS
            """),
            code("""
                def evaluate(response):
                    count = 0
                    for _ in response:
                        count += 1
                    return count <= @n@
            """),
        ),
        wrong=(
            Wrong(one("len(response) < @n@"), "Use fewer than {n} characters."),
            Wrong(one("len(response.replace(' ', '')) <= @n@"), "Use at most {n} characters without counting spaces."),
            Wrong(one("len(response.split()) <= @n@"), "Use at most {n} words or tokens in total."),
            Wrong(one("len(response) > @n@"), "Use more than {n} characters.", "contradiction"),
        ),
    ),
)
