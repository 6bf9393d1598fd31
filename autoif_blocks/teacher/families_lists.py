"""Families about lists, headings and markup."""

from __future__ import annotations

from random import Random

from .family import Builder, Family, Params, Wrong, code, one
from .prose import put, stretch

_HEADINGS = ("Background", "Main points", "Next steps", "Summary", "Notes", "Sources")
_SLOTS = ("[name]", "[date]", "[place]", "[amount]", "[time]")


def _items(form: str, *shifts: int) -> Builder:
    """A list of n plus one of the shifts items; `form` has the place of the number and of the text."""

    def build(text: str, p: Params, rng: Random) -> str:
        lines = stretch(text, max(1, p.n + rng.choice(shifts)))
        return "\n".join(form.format(i, line) for i, line in enumerate(lines, 1))

    return build


def _introduced(build: Builder) -> Builder:
    """The same list after a line of introduction, every other time."""
    return lambda text, p, rng: ("Here is a list:\n" if rng.random() < 0.5 else "") + build(text, p, rng)


def _sections(form: str, *shifts: int) -> Builder:
    def build(text: str, p: Params, rng: Random) -> str:
        lines = stretch(text, max(1, p.n + rng.choice(shifts)))
        return "\n\n".join(f"{form.format(title)}\n{line}" for title, line in zip(_HEADINGS, lines, strict=False))

    return build


def _bold(*shifts: int) -> Builder:
    def build(text: str, p: Params, rng: Random) -> str:
        words = " ".join(stretch(text, 3)).split()
        for i in rng.sample(range(len(words)), max(0, p.n + rng.choice(shifts))):
            words[i] = f"**{words[i].rstrip('.')}**" + ("." if words[i].endswith(".") else "")
        return " ".join(words)

    return build


def _slots(*shifts: int) -> Builder:
    def build(text: str, p: Params, rng: Random) -> str:
        for slot in rng.sample(_SLOTS, max(0, p.n + rng.choice(shifts))):
            text = put(text, slot, rng)
        return text

    return build


FAMILIES = (
    Family(
        name="bullets",
        n=(3, 4, 5, 6),
        ease=0.7,
        wordings=(
            'Give a list of exactly {n} bullet points, each on a line that starts with "- ".',
            "Use exactly {n} bullet points that begin with a hyphen.",
            "The answer must contain exactly {n} hyphen bullets.",
        ),
        comply=_introduced(_items("- {1}", 0)),
        violate=_introduced(_items("- {1}", -1, 1)),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"(?m)^\s*- ", response)) == @n@
            """),
            one("sum(line.strip().startswith('- ') for line in response.splitlines()) == @n@"),
            code(r"""
                def is_bullet(line):
                    return line.lstrip()[:1] == '-'

                def evaluate(response):
                    return len(list(filter(is_bullet, response.split("\n")))) == @n@
            """),
        ),
        wrong=(
            Wrong(one("len(response.splitlines()) == @n@"), "Write {n} lines of any kind."),
            Wrong(one("response.count('- ') >= @n@"), "Use {n} hyphens or more."),
            Wrong(one("response.count('* ') == @n@"), "Use {n} bullet points that begin with a star."),
        ),
    ),
    Family(
        name="numbered",
        n=(3, 4, 5, 6),
        ease=0.7,
        wordings=(
            "Answer with a numbered list of exactly {n} items.",
            "Number your points from 1 to {n}, one a line, in the form 1. 2. 3.",
            "Give exactly {n} steps as a numbered list.",
        ),
        comply=_introduced(_items("{0}. {1}", 0)),
        violate=_introduced(_items("{0}. {1}", -1, 1)),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    numbers = re.findall(r"(?m)^\s*(\d+)\.\s", response)
                    return numbers == [str(i) for i in range(1, @n@ + 1)]
            """),
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"(?m)^\d+\. ", response)) == @n@
            """),
        ),
        wrong=(
            Wrong(one("'@n@.' in response"), "Write the number {n} followed by a full stop."),
            Wrong(one("len(response.splitlines()) == @n@ + 1"), "Write one line more than {n}."),
            Wrong(one("response.count('.') == @n@"), "Use exactly {n} full stops."),
        ),
    ),
    Family(
        name="headings",
        n=(2, 3, 4),
        ease=0.65,
        wordings=(
            "Structure the answer with exactly {n} Markdown headings of level two.",
            'Use exactly {n} headings that start with "## ".',
        ),
        comply=_sections("## {0}", 0),
        violate=lambda text, p, rng: _sections(*rng.choice((("## {0}", 1), ("## {0}", -1), ("### {0}", 0))))(
            text, p, rng
        ),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"(?m)^## ", response)) == @n@
            """),
            one("len([l for l in response.splitlines() if l.startswith('## ')]) == @n@"),
        ),
        wrong=(
            Wrong(one("response.count('#') == @n@"), "Use the hash sign {n} times."),
            Wrong(one("response.count('## ') == @n@"), "Use {n} headings of level two or deeper."),
            Wrong(one("response.count('##') > @n@"), "Use more than {n} headings."),
        ),
    ),
    Family(
        name="bold",
        n=(2, 3, 4),
        ease=0.7,
        wordings=(
            "Highlight at least {n} words in bold with **double asterisks**.",
            "Put {n} or more words in Markdown bold.",
            "Your answer must have at least {n} bold passages, marked by double asterisks.",
        ),
        comply=_bold(0, 0, 1),
        violate=_bold(-1, -1, -2),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\*\*[^*\n]+\*\*", response)) >= @n@
            """),
            one("response.count('**') // 2 >= @n@"),
        ),
        wrong=(
            Wrong(one("response.count('**') >= @n@"), "Use double asterisks {n} times or more."),
            Wrong(one("response.count('*') >= @n@"), "Use at least {n} single asterisks."),
            Wrong(
                one("response.count('**') < @n@"), "Use hardly any bold words, fewer than {n} marks.", "contradiction"
            ),
        ),
    ),
    Family(
        name="placeholders",
        n=(2, 3, 4),
        ease=0.55,
        wordings=(
            "Include at least {n} placeholders in square brackets, such as [address].",
            "Leave {n} or more blanks to fill in, each written in square brackets.",
        ),
        comply=_slots(0, 0, 1),
        violate=_slots(-1, -1),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\[[^\[\]]+\]", response)) >= @n@
            """),
            one("response.count('[') >= @n@ and response.count(']') >= @n@"),
        ),
        wrong=(
            Wrong(one("response.count('[') > @n@"), "Use more than {n} square brackets."),
            Wrong(
                one("response.count('[') + response.count(']') >= @n@"), "Use at least {n} square bracket characters."
            ),
            Wrong(one("'[' not in response"), "Use no square brackets.", "contradiction"),
        ),
    ),
)
