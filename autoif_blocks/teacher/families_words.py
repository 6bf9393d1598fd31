"""Families about particular words."""

from __future__ import annotations

from random import Random

from .family import Family, Params, Wrong, code, one
from .prose import put, without

# None of these occurs in the prose, nor does one of them contain another.
_NOUNS = ("river", "lantern", "copper", "harbour", "velvet", "orchard", "compass", "thunder", "marble", "meadow")
_OTHERS = ("bridge", "candle", "window", "garden", "mountain", "silver")
_OPENERS = ("Imagine", "Briefly", "Frankly", "Today", "Certainly", "Remember", "Yes", "Indeed")
_CLOSERS = ("forever", "onwards", "farewell", "amen", "tomorrow", "enough", "done", "cheers")


def _with_word(text: str, p: Params, rng: Random) -> str:
    """Sometimes capitalised, for the functions that forget about case."""
    clean = without(text, p.word)
    return f"{p.word.capitalize()} first. {clean}" if rng.random() < 0.4 else put(clean, p.word, rng)


def _without_word(text: str, p: Params, rng: Random) -> str:
    return without(text, p.word)


def _with_plural(text: str, p: Params, rng: Random) -> str:
    """The word is missing, but now and then part of a longer one, for the functions that look for substrings."""
    clean = without(text, p.word)
    return put(clean, p.word + "s", rng) if rng.random() < 0.5 else clean


def _times(text: str, p: Params, rng: Random, count: int) -> str:
    text = without(text, p.word)
    for _ in range(count - 1):
        text = put(text, p.word, rng)
    return f"{p.word.capitalize()} first. {text}" if rng.random() < 0.5 else put(text, p.word, rng)


def _closed(text: str, word: str) -> str:
    return text.rstrip(".!? ") + f" {word}."


def _both(text: str, p: Params, rng: Random) -> str:
    clean = without(without(text, p.word), p.other)
    return put(_with_word(clean, p, rng), p.other, rng)


def _only_one(text: str, p: Params, rng: Random) -> str:
    clean = without(without(text, p.word), p.other)
    return put(clean, rng.choice((p.word, p.other)), rng) if rng.random() < 0.7 else clean


FAMILIES = (
    Family(
        name="include_word",
        word=_NOUNS,
        ease=0.85,
        clashes=("avoid_word",),
        wordings=(
            'Use the word "{word}" at least once.',
            'Your answer must contain the word "{word}".',
            'Include the word "{word}" somewhere in the answer.',
            'Mention the word "{word}".',
        ),
        comply=_with_word,
        violate=_with_plural,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return re.search(r"\b" + re.escape(@word@) + r"\b", response, re.IGNORECASE) is not None
            """),
            code("""
                import string

                def evaluate(response):
                    words = [w.strip(string.punctuation).lower() for w in response.split()]
                    return @word@.lower() in words
            """),
            code("""
                def tokens(text):
                    cleaned = ''.join(ch.lower() if ch.isalpha() else ' ' for ch in text)
                    return set(cleaned.split())

                def evaluate(response):
                    return @word@.lower() in tokens(response)
            """),
        ),
        wrong=(
            Wrong(
                one("@word@ in response"), 'Include the letters "{word}" in lower case, alone or inside another word.'
            ),
            Wrong(one("@word@ not in response.lower()"), 'The answer should avoid the word "{word}".', "contradiction"),
            Wrong(one("response.lower().startswith(@word@)"), 'The first thing in the answer must be "{word}".'),
        ),
    ),
    Family(
        name="avoid_word",
        word=_NOUNS,
        ease=0.8,
        clashes=("include_word", "word_times"),
        wordings=(
            'Do not use the word "{word}".',
            'Avoid the word "{word}" altogether.',
            'The word "{word}" must not appear in your answer.',
        ),
        comply=_without_word,
        violate=_with_word,
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return not re.search(r"(?i)\b" + @word@ + r"\b", response)
            """),
            one("@word@.lower() not in response.lower()"),
            code("""
                FORBIDDEN = @word@

                def evaluate(response):
                    for word in response.lower().split():
                        if word.strip('.,;:!?()"') == FORBIDDEN.lower():
                            return False
                    return True
            """),
        ),
        wrong=(
            Wrong(one("@word@ not in response"), 'Do not write "{word}" in lower case.'),
            Wrong(one("@word@ in response.lower()"), 'The answer has to say "{word}".', "contradiction"),
        ),
    ),
    Family(
        name="word_times",
        word=_NOUNS,
        n=(2, 3, 4, 5),
        ease=0.5,
        clashes=("avoid_word",),
        wordings=(
            'Use the word "{word}" exactly {n} times.',
            'The word "{word}" must occur exactly {n} times.',
            'Mention "{word}" {n} times, not more and not less.',
        ),
        comply=lambda text, p, rng: _times(text, p, rng, p.n),
        violate=lambda text, p, rng: _times(text, p, rng, p.n + rng.choice((-1, 1, 1))),
        correct=(
            code(r"""
                import re

                def evaluate(response):
                    return len(re.findall(r"\b" + @word@ + r"\b", response, re.I)) == @n@
            """),
            one("response.lower().count(@word@.lower()) == @n@"),
            code("""
                from collections import Counter
                import re

                def evaluate(response):
                    counts = Counter(re.findall('[a-z]+', response.lower()))
                    return counts[@word@.lower()] == @n@
            """),
        ),
        wrong=(
            Wrong(one("response.count(@word@) == @n@"), 'Write "{word}" exactly {n} times in lower case.'),
            Wrong(one("response.lower().count(@word@) >= @n@"), 'Use the word "{word}" at least {n} times.'),
            Wrong(one("response.lower().count(@word@) != @n@"), 'Never use "{word}" {n} times.', "contradiction"),
        ),
    ),
    Family(
        name="first_word",
        word=_OPENERS,
        ease=0.75,
        wordings=(
            'Start your answer with the word "{word}".',
            'The first word of the answer must be "{word}".',
            'Begin with the word "{word}".',
        ),
        comply=lambda text, p, rng: f"{p.word} {text[:1].lower()}{text[1:]}",
        violate=lambda text, p, rng: rng.choice((text, put(text, p.word, rng), f"Well {p.word} {text}")),
        correct=(
            one("response.split()[0].strip('.,:;!?') == @word@ if response.split() else False"),
            code(r"""
                import re

                def evaluate(response):
                    return bool(re.match(r"\s*" + @word@ + r"\b", response))
            """),
            code("""
                def evaluate(response):
                    words = response.strip().split()
                    if not words:
                        return False
                    return words[0].rstrip(',.!').lower() == @word@.lower()
            """),
        ),
        wrong=(
            Wrong(one("@word@ in response"), 'The text "{word}" must be found somewhere.'),
            Wrong(one("response.startswith(@word@.lower())"), 'Start with "{word}" in lower case letters.'),
            Wrong(one("not response.startswith(@word@)"), 'The answer must not start with "{word}".', "contradiction"),
        ),
    ),
    Family(
        name="last_word",
        word=_CLOSERS,
        ease=0.6,
        clashes=("end_phrase",),
        wordings=(
            'End your answer with the word "{word}".',
            'The last word of the answer must be "{word}".',
            'Finish with the word "{word}".',
        ),
        comply=lambda text, p, rng: _closed(text, p.word),
        violate=lambda text, p, rng: rng.choice((text, put(text, p.word, rng), _closed(text, p.word + " indeed"))),
        correct=(
            one("response.rstrip(' .!?').split()[-1:] == [@word@]"),
            code(r"""
                import re

                def evaluate(response):
                    return re.search(@word@ + r"\W*$", response) is not None
            """),
            code("""
                import string

                def last_word(text):
                    words = text.split()
                    return words[-1].strip(string.punctuation) if words else ''

                def evaluate(response):
                    return last_word(response).lower() == @word@.lower()
            """),
        ),
        wrong=(
            Wrong(one("response.endswith(@word@)"), 'End with "{word}" and no punctuation after it.', "entailment"),
            Wrong(one("@word@ in response.split()[-3:]"), 'Have "{word}" among the last few words.'),
        ),
    ),
    Family(
        name="both_words",
        word=_NOUNS,
        other=_OTHERS,
        ease=0.75,
        wordings=(
            'Use both the word "{word}" and the word "{other}".',
            'Your answer must contain the words "{word}" and "{other}".',
            'Mention "{word}" as well as "{other}".',
        ),
        comply=_both,
        violate=_only_one,
        correct=(
            one("all(word in response.lower() for word in (@word@, @other@))"),
            code("""
                def evaluate(response):
                    text = response.lower()
                    return @word@ in text and @other@ in text
            """),
            code(r"""
                import re

                REQUIRED = {@word@, @other@}

                def evaluate(response):
                    return REQUIRED <= set(re.findall(r"\w+", response.lower()))
            """),
        ),
        wrong=(
            Wrong(
                one("any(word in response.lower() for word in (@word@, @other@))"), 'Use "{word}" or "{other}" or both.'
            ),
            Wrong(one("@word@ in response and @other@ in response"), 'Use "{word}" and "{other}", both in lower case.'),
        ),
    ),
)
