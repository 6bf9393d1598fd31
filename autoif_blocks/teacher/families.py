"""All families, and the ways back: from an instruction's text, and from a function's code, to family and parameters."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random

from . import (
    families_case,
    families_chinese,
    families_layout,
    families_length,
    families_letters,
    families_lists,
    families_marks,
    families_sentences,
    families_words,
)
from .family import (
    Family,
    Params,
    Relation,
    Wrong,
    code_pattern,
    fill_wording,
    params_of,
    plain_code,
    skeleton,
    tidy,
    wording_pattern,
)

FAMILIES: tuple[Family, ...] = (
    *families_length.FAMILIES,
    *families_sentences.FAMILIES,
    *families_words.FAMILIES,
    *families_letters.FAMILIES,
    *families_case.FAMILIES,
    *families_marks.FAMILIES,
    *families_layout.FAMILIES,
    *families_lists.FAMILIES,
)
CHINESE: tuple[Family, ...] = families_chinese.FAMILIES
_ALL = (*FAMILIES, *CHINESE)


@dataclass(frozen=True)
class Reading:
    """What a text or a function turned out to be. `wrong`: it is a family's wrong function, or its words."""

    family: Family
    params: Params
    wrong: Wrong | None = None


_WORDINGS = [(wording_pattern(wording, family), family) for family in _ALL for wording in family.wordings]
_SAYINGS = [(wording_pattern(wrong.says, family), family, wrong) for family in _ALL for wrong in family.wrong]
_CODE: dict[str, list[tuple[re.Pattern[str], Family, Wrong | None]]] = defaultdict(list)
for _family in _ALL:
    _templates: list[tuple[str, Wrong | None]] = [(template, None) for template in _family.correct]
    _templates += [(wrong.code, wrong) for wrong in _family.wrong]
    for _template, _wrong in _templates:
        _CODE[skeleton(plain_code(_template))].append((code_pattern(_template), _family, _wrong))


@lru_cache(maxsize=65_536)
def recognise(text: str) -> Reading | None:
    """The family and parameters of an instruction; None if no family knows it."""
    text = tidy(text)
    for pattern, family in _WORDINGS:
        if match := pattern.fullmatch(text):
            return Reading(family, params_of(match))
    return None


@lru_cache(maxsize=65_536)
def recognise_saying(text: str) -> tuple[Reading, ...]:
    """The wrong functions whose back-translation this is; several families may share one."""
    text = tidy(text)
    found = ((pattern.fullmatch(text), family, wrong) for pattern, family, wrong in _SAYINGS)
    return tuple(Reading(family, params_of(match), wrong) for match, family, wrong in found if match)


@lru_cache(maxsize=65_536)
def recognise_code(text: str, language: str = "en") -> Reading | None:
    """The family and parameters that a function was written from; None if no template wrote it.

    Families share short functions. A family of the language wins, then one that knows the word, then the template that
    explains most by itself, then a correct function before a wrong one.
    """
    plain = plain_code(text)
    found = []
    for pattern, family, wrong in _CODE.get(skeleton(plain), ()):
        if match := pattern.fullmatch(plain):
            params = params_of(match, quoted=True)
            stranger = bool(params.word) and params.word not in family.word
            foreign = family.language != language
            found.append(((foreign, stranger, pattern.groups, wrong is not None), Reading(family, params, wrong)))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def relation(first: str, second: str) -> Relation | None:
    """How the second instruction relates to the first; None where the first or the second is unknown."""
    one, other = recognise(first), recognise(second)
    if one is None:
        return None
    for saying in recognise_saying(second):
        if saying.family is one.family and saying.params == _only(one.params, saying.params) and saying.wrong:
            return saying.wrong.relation
    if other is None:
        return "neutral" if recognise_saying(second) else None
    if other.family is one.family:
        return "entailment" if other.params == one.params else "contradiction"
    if other.family.name in one.family.clashes or one.family.name in other.family.clashes:
        return "contradiction"
    return "neutral"


def _only(params: Params, named: Params) -> Params:
    """The parameters that the other text names too: a saying may leave some out."""
    return Params(
        n=params.n if named.n else 0,
        m=params.m if named.m else 0,
        word=params.word if named.word else "",
        other=params.other if named.other else "",
    )


# A model repeats itself: a few of the instructions that it could think of come again and again.
CATALOGUE_SIZE = 2_000


@cache
def catalogue(index: int, families: tuple[Family, ...] = FAMILIES) -> str:
    """One of the instructions that the simulated model thinks of, the more often the smaller its index."""
    rng = Random(index)
    family = families[index % len(families)]
    return fill_wording(rng.choice(family.wordings), family.draw(rng))
