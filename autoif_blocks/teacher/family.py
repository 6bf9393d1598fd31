"""What a family of verifiable instructions is: data, and the two ways back from text to parameters.

Wordings and code are templates. `{n}`, `{m}`, `{word}`, `{other}` in a wording and `@n@`, `@m@`, `@word@`, `@other@` in
code stand for the parameters; the pattern that recognises a text is made from the template that wrote it, so the two
cannot drift apart.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

Relation = Literal["entailment", "neutral", "contradiction"]

_COUNTED = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = {word: number for number, word in enumerate(_COUNTED.split())}


@dataclass(frozen=True)
class Params:
    """The parameters of one instruction; a family uses those that its wordings name."""

    n: int = 0
    m: int = 0
    word: str = ""
    other: str = ""


Builder = Callable[[str, Params, Random], str]


@dataclass(frozen=True)
class Wrong:
    """A function that does not check the instruction. `says` is what it checks instead, as a back-translation."""

    code: str
    says: str
    relation: Relation = "neutral"


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of instruction: how it is worded, checked (well and badly), obeyed and broken."""

    name: str
    wordings: tuple[str, ...]
    """Sentences with parameters; all mean the same."""
    comply: Builder
    """Prose in, an answer that follows the instruction out."""
    violate: Builder
    """Prose in, an answer that just misses it out."""
    correct: tuple[str, ...]
    """Code templates that are right on everything the two builders write."""
    wrong: tuple[Wrong, ...]
    """Code templates that are wrong on some of it."""
    ease: float = 0.6
    """How often the simulated model manages to follow it."""
    n: tuple[int, ...] = ()
    gap: tuple[int, ...] = ()
    """`m` is `n` plus one of these."""
    word: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    language: str = "en"
    clashes: tuple[str, ...] = field(default=())
    """Names of families that nobody can follow together with this one."""

    def draw(self, rng: Random) -> Params:
        """Fresh parameters."""
        n = rng.choice(self.n) if self.n else 0
        return Params(
            n=n,
            m=n + rng.choice(self.gap) if self.gap else 0,
            word=rng.choice(self.word) if self.word else "",
            other=rng.choice(self.other) if self.other else "",
        )


def code(text: str) -> str:
    """A code template written indented in the source of a families file."""
    return textwrap.dedent(text).strip("\n") + "\n"


def one(expression: str) -> str:
    """The shortest function there is: `return <expression>`."""
    return f"def evaluate(response):\n    return {expression}\n"


def fill_wording(template: str, params: Params) -> str:
    return template.format(n=params.n, m=params.m, word=params.word, other=params.other)


def fill_code(template: str, params: Params) -> str:
    """The function for these parameters; words become string literals."""
    return (
        template.replace("@n@", str(params.n))
        .replace("@m@", str(params.m))
        .replace("@word@", repr(params.word))
        .replace("@other@", repr(params.other))
    )


_LEAD = re.compile(r"^(?:[-*•]\s+|\d+[.)]\s+)?(?:instruction:\s*)?(?:please\s+)?", re.IGNORECASE)
_NUMBER = r"\d+|" + "|".join(NUMBER_WORDS)
_STRING = r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""


def tidy(text: str) -> str:
    """An instruction without what people and models put around it: bullets, `please`, quotes, stars, a full stop."""
    text = " ".join(text.split()).translate(str.maketrans("“”‘’", "\"\"''"))
    text = _LEAD.sub("", text).strip("* `")
    if len(text) > 2 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1]
    return text.rstrip(".!* 。！")


def wording_pattern(template: str, family: Family) -> re.Pattern[str]:
    """The pattern that recognises what `fill_wording` wrote, in any case and with number words too."""
    pattern = re.escape(tidy(template)).replace('"', "[\"'`*]*")
    phrase = any(" " in word for word in family.word)
    for name in ("n", "m"):
        pattern = _named(pattern, rf"\{{{name}\}}", name, _NUMBER)
    for name in ("word", "other"):
        pattern = _named(pattern, rf"\{{{name}\}}", name, r".+?" if phrase else r"[^\s\"'`*]+")
    return re.compile(pattern, re.IGNORECASE)


def code_pattern(template: str) -> re.Pattern[str]:
    """The pattern that recognises what `fill_code` wrote, after `plain_code`."""
    pattern = re.escape(plain_code(template))
    for name in ("n", "m"):
        pattern = _named(pattern, f"@{name}@", name, r"\d+")
    for name in ("word", "other"):
        pattern = _named(pattern, f"@{name}@", name, _STRING)
    return re.compile(pattern)


def _named(pattern: str, placeholder: str, name: str, what: str) -> str:
    """The first place of a parameter captures it; the others must repeat it."""
    pattern = pattern.replace(placeholder, f"(?P<{name}>{what})", 1)
    return pattern.replace(placeholder, f"(?P={name})")


def params_of(match: re.Match[str], quoted: bool = False) -> Params:
    """The parameters that a wording or code pattern has captured; `quoted` where words are Python literals."""
    groups = match.groupdict()
    words = (groups.get("word") or "", groups.get("other") or "")
    if quoted:
        words = (_literal(words[0]), _literal(words[1]))
    return Params(_number(groups.get("n")), _number(groups.get("m")), *words)


def _number(text: str | None) -> int:
    if not text:
        return 0
    return int(text) if text.isdigit() else NUMBER_WORDS[text.lower()]


def _literal(text: str) -> str:
    return str(ast.literal_eval(text)) if text else ""


_DOCSTRING = re.compile(r'"""[^"]*"""')
_COMMENT = re.compile(r"(?m)(?:^|\s+)#[^\"'\n]*$")
_LITERAL = re.compile(rf"[rbf]?(?:{_STRING})|@(?:word|other)@|\b\d+\b|@[nm]@")


def plain_code(text: str) -> str:
    """Code less what does not change its meaning: docstrings, comments, annotations, layout."""
    text = _COMMENT.sub("", _DOCSTRING.sub("", text))
    return " ".join(text.replace("response: str", "response").replace(") -> bool:", "):").split())


def skeleton(plain: str) -> str:
    """Code less its literals: equal for a template and for all functions made from it."""
    return _LITERAL.sub("_", plain)
