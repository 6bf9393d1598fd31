"""Families about the letters that words are made of."""

from __future__ import annotations

from random import Random

from .family import Family, Params, Wrong, code, one
from .prose import put, sentences, without

_LONG = {
    8: "standard",
    9: "different",
    10: "impossible",
    11: "interesting",
    12: "nevertheless",
    13: "understanding",
    14: "responsibility",
    15: "straightforward",
}
_ACROSTIC = {
    "a": "Almost everyone starts small.",
    "c": "Check the plan twice.",
    "e": "Every step counts.",
    "i": "In time it gets easier.",
    "m": "Most people enjoy it.",
    "n": "Nothing beats practice.",
    "o": "Only a few things matter.",
    "p": "Patience helps a lot.",
    "r": "Rest when you need to.",
    "s": "Start with the basics.",
    "t": "Take your time.",
    "u": "Use what you have.",
}


def _letter(text: str, p: Params, rng: Random) -> str:
    letter = p.word.lower()
    return put(without(text, letter), rng.choice((letter, letter.upper())) + "ata", rng)


def _long_word(text: str, p: Params, rng: Random) -> str:
    short = without(text, rf"\w{{{p.n},}}")
    return put(short, _LONG[rng.choice((p.n, p.n, min(15, p.n + 1)))], rng)


def _no_long_word(text: str, p: Params, rng: Random) -> str:
    short = without(text, rf"\w{{{p.n},}}")
    return put(short, _LONG[p.n - 1], rng) if rng.random() < 0.5 else short


def _acrostic(text: str, p: Params, rng: Random) -> str:
    return " ".join(_ACROSTIC[letter] for letter in p.word.lower() if letter in _ACROSTIC) or text


def _broken_acrostic(text: str, p: Params, rng: Random) -> str:
    lines = sentences(_acrostic(text, p, rng))
    return " ".join(
        [*lines[:-1], "Good luck with all of it."] if rng.random() < 0.5 else [*lines, "Good luck with it."]
    )


FAMILIES = (
    Family(
        name="avoid_letter",
        word=tuple("begkosuvwyz"),
        ease=0.35,
        wordings=(
            'Do not use the letter "{word}" anywhere.',
            'Write an answer without the letter "{word}".',
            'The letter "{word}" is forbidden, in lower and in upper case.',
        ),
        comply=lambda text, p, rng: without(text, p.word),
        violate=_letter,
        correct=(
            one("@word@.lower() not in response.lower()"),
            code("""
                def evaluate(response):
                    for char in response:
                        if char.lower() == @word@.lower():
                            return False
                    return True
            """),
            one("response.casefold().count(@word@) == 0"),
        ),
        wrong=(
            Wrong(one("@word@ not in list(response)"), 'Do not use a small letter "{word}".', "entailment"),
            Wrong(one("response.lower().count(@word@) > 0"), 'Use the letter "{word}" at least once.', "contradiction"),
            Wrong(one("not response.lower().startswith(@word@)"), 'The answer must not begin with "{word}".'),
        ),
    ),
    Family(
        name="long_word",
        n=(9, 10, 11, 12, 13, 14),
        ease=0.7,
        wordings=(
            "Use at least one word of {n} letters or more.",
            "Your answer must contain a word that is {n} or more letters long.",
            "Include a word with at least {n} letters.",
        ),
        comply=_long_word,
        violate=_no_long_word,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return bool(re.search(r"[A-Za-z]{@n@,}", response))
            """),
            one("max((len(w.strip('.,!?')) for w in response.split()), default=0) >= @n@"),
            code("""
                def evaluate(response):
                    longest = 0
                    for word in response.split():
                        letters = ''.join(ch for ch in word if ch.isalpha())
                        longest = max(longest, len(letters))
                    return longest >= @n@
            """),
        ),
        wrong=(
            Wrong(
                one("any(len(w.strip('.')) > @n@ for w in response.split())"), "Use a word with more than {n} letters."
            ),
            Wrong(
                one("all(len(w) < @n@ for w in response.split())"),
                "Only use words shorter than {n} letters.",
                "contradiction",
            ),
        ),
    ),
    Family(
        name="acrostic",
        word=("sun", "map", "tea", "rain", "core", "must", "noise", "spice"),
        ease=0.35,
        wordings=(
            'The first letters of your sentences must spell "{word}".',
            'Write an acrostic: the initial letters of the sentences spell "{word}".',
        ),
        comply=_acrostic,
        violate=_broken_acrostic,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    parts = re.split(r"(?<=[.!?])\s+", response.strip())
                    initials = ''.join(part[0] for part in parts if part)
                    return initials.lower() == @word@.lower()
            """),
            one("[s.strip()[0].lower() for s in response.split('.') if s.strip()] == list(@word@)"),
        ),
        wrong=(
            Wrong(
                one("''.join(s[0] for s in response.split('. ')) == @word@"),
                'The sentences start with small letters that spell "{word}".',
            ),
            Wrong(
                one("[w[0] for w in response.lower().split()][:len(@word@)] == list(@word@)"),
                'The first letters of the first words must spell "{word}".',
            ),
        ),
    ),
)
