"""Which language a text is in (by py3langid, whose model is in its wheel), its words, and how long it is."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""for a character class of `regex`: the scripts that part words by nothing"""
_INSIDE = r"\p{L}\p{N}\p{M}_\u200c\u200d'’.,:@/-"
_WORD = regex.compile(rf"[{UNSPACED}]|(?![{UNSPACED}])[\p{{L}}\p{{N}}](?:(?![{UNSPACED}])[{_INSIDE}])*")
_CHARACTER = regex.compile(r"\X")
_PLAIN = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+")


@cache
def detector() -> Any:
    """`detector().rank(text)` is a list of (ISO 639-1 code, share), the likeliest first."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # imported when needed: numpy and a model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def count_characters(text: str) -> int:
    """The characters that a reader sees: a letter with its accents is one, a family of emoji too."""
    return len(text) if text.isascii() else sum(1 for _ in _CHARACTER.finditer(text))


def count_words(text: str) -> int:
    """The words; of scripts that do not part them (Chinese, Japanese, Thai, …) each character counts as one.

    That is what Chinese and Japanese readers count. Marks and emoji that stand alone are no words.
    """
    return sum(1 for _ in _WORD.finditer(text))


def words_of(text: str) -> list[str]:
    """The words in a form in which they are compared: in lower case, parted by every mark (`don't` is two). As in
    `count_words`, each character counts as one where a script parts words by nothing."""
    return list(_PLAIN.findall(unicodedata.normalize("NFKC", text).casefold()))
