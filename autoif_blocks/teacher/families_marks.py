"""Families about punctuation and digits."""

from __future__ import annotations

import re
from random import Random

from .family import Builder, Family, Params, Wrong, code, one
from .prose import put, sentences, stretch

_NUMBERS = ("3", "12", "45", "7", "100", "2024", "60", "18")


def _marks(mark: str, *shifts: int) -> Builder:
    """n plus one of the shifts sentences end in the mark, the others in a full stop."""

    def build(text: str, p: Params, rng: Random) -> str:
        count = max(0, p.n + rng.choice(shifts))
        lines = stretch(text, max(count, 3))
        return " ".join(line.rstrip(".") + (mark if i < count else ".") for i, line in enumerate(lines))

    return build


def _inside(what: tuple[str, ...], *shifts: int) -> Builder:
    """n plus one of the shifts pieces put at the ends of sentences, before the full stop."""

    def build(text: str, p: Params, rng: Random) -> str:
        count = max(0, p.n + rng.choice(shifts))
        lines = stretch(text, max(count, 2))
        extra = [f" {what[i % len(what)]}" if i < count else "" for i in range(len(lines))]
        return " ".join(line.rstrip(".") + add + "." for line, add in zip(lines, extra, strict=True))

    return build


def _comma(text: str, p: Params, rng: Random) -> str:
    lines = sentences(text)
    where = rng.randrange(len(lines))
    words = lines[where].split()
    words[0] += ","
    lines[where] = " ".join(words)
    return " ".join(lines)


FAMILIES = (
    Family(
        name="no_commas",
        ease=0.8,
        wordings=(
            "Do not use any commas.",
            "Write your answer without a single comma.",
            "Your answer must not contain commas.",
        ),
        comply=lambda text, p, rng: text.replace(",", ""),
        violate=_comma,
        correct=(
            one("',' not in response"),
            one("response.count(',') == 0"),
            code("""
                def evaluate(response):
                    for char in response:
                        if char == ',':
                            return False
                    return True
            """),
        ),
        wrong=(
            Wrong(one("', ' in response"), "Use a comma followed by a space.", "contradiction"),
            Wrong(one("',' not in response[:20]"), "Keep commas out of the opening words.", "entailment"),
            Wrong(one("not response.endswith(',')"), "Do not end the answer with a comma.", "entailment"),
        ),
    ),
    Family(
        name="end_question",
        ease=0.7,
        wordings=(
            "End your answer with a question mark.",
            "Finish with a question.",
            "The last character of the answer must be a question mark.",
        ),
        comply=lambda text, p, rng: text.rstrip(".") + rng.choice((". What do you think?", ". Does that help?", "?")),
        violate=lambda text, p, rng: rng.choice((text, f"Is it so? {text}", text.rstrip(".") + "!")),
        correct=(
            one("response.strip().endswith('?')"),
            one("response.rstrip()[-1:] == '?'"),
            code(r"""
                import re

                def evaluate(response):
                    return re.search(r"\?\s*$", response) is not None
            """),
        ),
        wrong=(
            Wrong(one("'?' in response"), "Ask a question somewhere."),
            Wrong(one("not response.strip().endswith('?')"), "Never end on a question mark.", "contradiction"),
        ),
    ),
    Family(
        name="exclamations",
        n=(2, 3, 4),
        ease=0.6,
        wordings=(
            "Use exactly {n} exclamation marks.",
            "Your answer must contain exactly {n} exclamation marks.",
            "Put {n} exclamation marks into the answer, neither more nor fewer.",
        ),
        comply=_marks("!", 0),
        violate=_marks("!", -1, 1, 1),
        correct=(
            one("response.count('!') == @n@"),
            one("sum(1 for ch in response if ch == '!') == @n@"),
            code("""
                import re

                def evaluate(response):
                    return len(re.findall('!', response)) == @n@
            """),
        ),
        wrong=(
            Wrong(one("response.count('!') >= @n@"), "Use {n} exclamation marks or more."),
            Wrong(one("response.count('!') <= @n@"), "Use up to {n} exclamation marks."),
            Wrong(one("'!' not in response"), "Use no exclamation marks at all.", "contradiction"),
        ),
    ),
    Family(
        name="no_digits",
        ease=0.75,
        clashes=("min_numbers",),
        wordings=(
            "Do not use any digits.",
            "Your answer must not contain digits from 0 to 9.",
            "Write without numerals.",
        ),
        comply=lambda text, p, rng: re.sub(r"\d+", "some", text),
        violate=lambda text, p, rng: put(text, rng.choice(_NUMBERS), rng),
        correct=(
            one("not any(ch.isdigit() for ch in response)"),
            code(r"""
                import re

                def evaluate(response):
                    return not re.search(r"\d", response)
            """),
            code("""
                DIGITS = '0123456789'

                def evaluate(response):
                    return all(ch not in DIGITS for ch in response)
            """),
        ),
        wrong=(
            Wrong(one("not response.isdigit()"), "The answer must be more than a number.", "entailment"),
            Wrong(one("any(ch.isdigit() for ch in response)"), "Use at least one digit.", "contradiction"),
            Wrong(one("not any(ch in '12345' for ch in response)"), "Avoid the digits from one to five.", "entailment"),
        ),
    ),
    Family(
        name="min_numbers",
        n=(2, 3, 4),
        ease=0.6,
        clashes=("no_digits",),
        wordings=(
            "Include at least {n} numbers written in digits.",
            "Your answer must contain {n} or more numbers in digits.",
            "Mention no fewer than {n} figures such as 7 or 120.",
        ),
        comply=_inside(_NUMBERS, 0, 0, 1),
        violate=_inside(_NUMBERS[3:], -1, -1, -2),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\d+", response)) >= @n@
            """),
            one("sum(w.strip('.,!?').isdigit() for w in response.split()) >= @n@"),
        ),
        wrong=(
            Wrong(one("sum(ch.isdigit() for ch in response) >= @n@"), "Use at least {n} digit characters."),
            Wrong(
                one("sum(w.isdigit() for w in response.split()) >= @n@"), "Have {n} numbers that stand between blanks."
            ),
        ),
    ),
    Family(
        name="parentheses",
        n=(2, 3),
        ease=0.65,
        wordings=(
            "Add at least {n} remarks in parentheses.",
            "Use round brackets at least {n} times.",
            "Your answer must contain {n} or more parenthetical remarks.",
        ),
        comply=_inside(("(so to speak)", "(in short)", "(if you can)", "(at first)"), 0, 0, 1),
        violate=_inside(("(so to speak)", "(in short)", "(if you can)"), -1, -1, -2),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\([^()]+\)", response)) >= @n@
            """),
            one("min(response.count('('), response.count(')')) >= @n@"),
        ),
        wrong=(
            Wrong(one("'(' in response and ')' in response"), "Use a pair of round brackets."),
            Wrong(one("response.count('(') + response.count(')') >= @n@"), "Use at least {n} bracket characters."),
        ),
    ),
    Family(
        name="semicolons",
        n=(2, 3),
        ease=0.5,
        wordings=(
            "Use at least {n} semicolons.",
            "Your answer must contain {n} or more semicolons.",
        ),
        comply=_inside(("; it pays off", "; nothing more", "; try it", "; no rush"), 0, 0, 1),
        violate=_inside(("; it pays off", "; nothing more", "; try it"), -1, -1),
        correct=(
            one("response.count(';') >= @n@"),
            one("len(response.split(';')) > @n@"),
            code("""
                def evaluate(response):
                    found = 0
                    for ch in response:
                        if ch == ';':
                            found += 1
                    return found >= @n@
            """),
        ),
        wrong=(
            Wrong(one("response.count(';') > @n@"), "Use more than {n} semicolons."),
            Wrong(one("len(response.split(';')) >= @n@"), "Have {n} parts with semicolons between them."),
        ),
    ),
)
