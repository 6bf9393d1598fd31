"""Plain prose about anything, and the few ways in which builders bend it.

Sentences here are deliberately dull: no commas, digits, hyphens or marks other than the full stop, so that what an
instruction asks for is there only when a builder has put it there.
"""

from __future__ import annotations

import re
from itertools import cycle, islice
from random import Random

FILLERS = (
    "The first step is usually the hardest part.",
    "A little planning saves a lot of time later.",
    "Most people find a routine that suits them.",
    "There is no need to rush the early stages.",
    "Small changes often matter more than big ones.",
    "It also helps to write down what you learn.",
    "Try one idea and see how it works for you.",
    "Keep what works and let the rest go.",
    "Good tools make the whole job feel lighter.",
    "Ask someone with experience if you get stuck.",
)

_SENTENCES = (
    "{A} is easier than it looks once you know where to start.",
    "Most questions about {a} come down to {b} in the end.",
    "When you think about {a} it helps to look at {b} first.",
    "A good rule for {a} is to begin with something small.",
    "People often forget how much {a} depends on {b} and the setting.",
    "You can learn a great deal about {a} in a single afternoon.",
    "Start with {a} and only then move on to {b} if you still want to.",
    "The main thing about {a} is to stay patient.",
    "Experts agree that {a} gets better with practice.",
    "If {a} feels too hard you can break it into parts.",
    "It is worth checking how {b} affects {a} before you decide.",
    "Nobody gets {a} right at the first attempt.",
    "A short note about {a} will remind you of what you tried.",
    "The link between {a} and {b} is stronger than most people expect.",
    "Give {a} a fair chance before you look for something else.",
    "In practice {a} works best when {b} is simple.",
    "Think of {a} as a habit rather than a task.",
    "The quickest way to improve {a} is to compare it with {b} directly.",
    "There are many views on {a} but the basics stay the same.",
    "What matters for {a} is the goal behind it.",
)

TOPICS = (
    ("bread", "yeast", "oven"),
    ("running", "shoes", "breathing"),
    ("gardens", "soil", "rain"),
    ("spreadsheets", "formulas", "data"),
    ("winter", "travel", "trains"),
    ("sleep", "light", "noise"),
    ("music", "practice", "rhythm"),
    ("budget", "rent", "savings"),
)

_COMMON = """
the and for are was were what how why when where who which with that this from have has had can could should would
will does did you your our their its his her they them some any all not but about into than then there here just
like need want please tell give make get good best way much many more most write explain help between difference
without under over after before during while being been also very really
"""
_STOP = frozenset(_COMMON.split())
_WORD = re.compile(r"[a-z]{3,}")
_BREAK = re.compile(r"(?<=[.!?])\s+")


def topic_words(text: str) -> tuple[str, ...]:
    """The words of a query that an answer should mention; `("this",)` where it has none."""
    found = dict.fromkeys(word for word in _WORD.findall(text.lower()) if word not in _STOP)
    return tuple(found)[:6] or ("this",)


def write(topics: tuple[str, ...], rng: Random, count: int) -> str:
    """`count` sentences of prose about the topics."""
    lines = rng.sample(_SENTENCES, min(count, len(_SENTENCES)))
    text = []
    for line in lines:
        a, b = rng.choice(topics[:3]), rng.choice(topics)
        if a == b:
            b = "time"
        text.append(line.format(a=a, b=b, A=a.capitalize()))
    return " ".join(text)


def sentences(text: str) -> list[str]:
    return _BREAK.split(text.strip())


def stretch(text: str, count: int) -> list[str]:
    """Exactly `count` sentences: the text's own, then filler."""
    return list(islice(_endless(sentences(text)), count))


def _endless(own: list[str]) -> cycle[str]:
    return cycle([*own, *(filler for filler in FILLERS if filler not in own)])


def cut_words(text: str, count: int) -> str:
    """Exactly `count` words, the last one followed by a full stop."""
    words = " ".join(stretch(text, 2 + count // 3)).split()[: max(1, count)]
    words[-1] = words[-1].rstrip(".") + "."
    return " ".join(words)


def cut_chars(text: str, count: int) -> str:
    """Exactly `count` characters, neither the first nor the last of them a blank."""
    body = " ".join(stretch(text, 2 + count // 20))[: count - 1]
    return (body[:-1] + "s" if body.endswith((" ", ".")) else body) + "."


def put(text: str, word: str, rng: Random) -> str:
    """The text with `word` inside one of its sentences, never as the first or the last word of the text."""
    words = text.split()
    if len(words) < 2:
        words = [*words, "and", "more."]
    words.insert(rng.randrange(1, len(words)), word)
    return " ".join(words)


def without(text: str, pattern: str) -> str:
    """The text less every word that the pattern is found in; never empty."""
    unwanted = re.compile(pattern, re.IGNORECASE)
    kept = [word for word in text.split() if not unwanted.search(word)]
    for spare in ("so", "it", "can", "work", "now", "my", "tip", "go", "on"):
        if len(kept) >= 4:
            break
        if not unwanted.search(spare):
            kept.append(spare)
    return " ".join(kept).rstrip(".") + "."


def blocks(text: str, count: int) -> list[str]:
    """The text dealt into `count` non-empty pieces of whole sentences."""
    pieces = stretch(text, max(count, len(sentences(text))))
    return [" ".join(pieces[i::count]) for i in range(count)]
