"""Families about capital and small letters."""

from __future__ import annotations

from random import Random

from .family import Family, Params, Wrong, code, one
from .prose import put


def _shout(text: str, p: Params, rng: Random, count: int) -> str:
    words = text.split()
    places = [i for i, word in enumerate(words) if len(word.strip(".")) > 1]
    for i in rng.sample(places, min(count, len(places))):
        words[i] = words[i].upper()
    return " ".join(words)


def _one_capital(text: str, p: Params, rng: Random) -> str:
    """All lower case but for one letter, for the functions that look at part of the text."""
    lower = text.lower()
    return text if rng.random() < 0.5 else put(lower, "Maybe", rng)


def _mostly_upper(text: str, p: Params, rng: Random) -> str:
    return put(text.upper(), "maybe", rng) if rng.random() < 0.6 else text


def _title(text: str, p: Params, rng: Random) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in text.split())


FAMILIES = (
    Family(
        name="lowercase",
        ease=0.65,
        clashes=("uppercase", "title_case", "capital_words", "first_word"),
        wordings=(
            "Write your whole answer in lower case.",
            "Do not use any capital letters.",
            "Use only lowercase letters in your answer.",
        ),
        comply=lambda text, p, rng: text.lower(),
        violate=_one_capital,
        correct=(
            one("response == response.lower()"),
            one("not any(ch.isupper() for ch in response)"),
            code("""
                import re

                def evaluate(response):
                    return re.search('[A-Z]', response) is None
            """),
        ),
        wrong=(
            Wrong(one("response[:1].islower()"), "Start with a small letter."),
            Wrong(one("response.isupper()"), "Shout the answer with every letter large.", "contradiction"),
            Wrong(one("any(ch.islower() for ch in response)"), "Use at least one small letter."),
        ),
    ),
    Family(
        name="uppercase",
        ease=0.65,
        clashes=("lowercase",),
        wordings=(
            "Write your whole answer in capital letters.",
            "Use only uppercase letters in your answer.",
            "Do not use any lowercase letters.",
        ),
        comply=lambda text, p, rng: text.upper(),
        violate=_mostly_upper,
        correct=(
            one("response == response.upper()"),
            one("response.isupper()"),
            code("""
                def evaluate(response):
                    letters = [ch for ch in response if ch.isalpha()]
                    return bool(letters) and all(ch.isupper() for ch in letters)
            """),
        ),
        wrong=(
            Wrong(one("response[:1].isupper()"), "Start with a capital letter."),
            Wrong(one("sum(ch.isupper() for ch in response) > len(response) / 2"), "Most letters should be capitals."),
            Wrong(one("response.islower()"), "Whisper the answer with every letter small.", "contradiction"),
        ),
    ),
    Family(
        name="capital_words",
        n=(2, 3, 4, 5),
        ease=0.6,
        clashes=("lowercase",),
        wordings=(
            "Write at least {n} words in all capitals.",
            "Put no fewer than {n} words in ALL CAPS.",
            "Emphasise {n} or more words by writing them entirely in capital letters.",
        ),
        comply=lambda text, p, rng: _shout(text, p, rng, p.n + rng.choice((0, 0, 1))),
        violate=lambda text, p, rng: _shout(text, p, rng, p.n - rng.choice((1, 1, 2))),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\b[A-Z]{2,}\b", response)) >= @n@
            """),
            code("""
                def evaluate(response):
                    shouted = [w for w in response.split() if len(w.strip('.')) > 1 and w.isupper()]
                    return len(shouted) >= @n@
            """),
        ),
        wrong=(
            Wrong(one("sum(w.isupper() for w in response.split()) > @n@"), "Write more than {n} words in capitals."),
            Wrong(one("sum(ch.isupper() for ch in response) >= @n@"), "Use at least {n} capital letters."),
            Wrong(
                one("sum(w.isupper() for w in response.split()) < @n@"),
                "Write fewer than {n} words in capitals.",
                "contradiction",
            ),
        ),
    ),
    Family(
        name="title_case",
        ease=0.55,
        clashes=("lowercase",),
        wordings=(
            "Start every word with a capital letter.",
            "Capitalise the first letter of every word.",
            "Each word of the answer must begin with an uppercase letter.",
        ),
        comply=_title,
        violate=lambda text, p, rng: put(_title(text, p, rng), "maybe", rng) if rng.random() < 0.7 else text,
        correct=(
            one("all(word[0].isupper() for word in response.split())"),
            code(r"""
                import re

                def evaluate(response):
                    return not re.search(r"(?:^|\s)[a-z]", response)
            """),
            code("""
                def capitalised(word):
                    return word[:1] == word[:1].upper()

                def evaluate(response):
                    return all(map(capitalised, response.split()))
            """),
        ),
        wrong=(
            Wrong(one("any(word[0].isupper() for word in response.split())"), "Start some word with a capital letter."),
            Wrong(
                one("all(s[0].isupper() for s in response.split('. '))"), "Start every sentence with a capital letter."
            ),
        ),
    ),
)
