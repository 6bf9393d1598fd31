"""Prompts with several constraints: which they are, and an answer that tries to follow all of them."""

from __future__ import annotations

from random import Random

from .families import Reading, recognise

# What reshapes the whole text comes first, what touches a word or a mark of it then, what stands around it last.
_ORDER = """
    avoid_letter avoid_word sentence_words exact_sentences min_sentences paragraphs lines acrostic bullets numbered
    headings
    max_words word_range max_chars min_words no_commas no_digits include_word two_words word_times long_word
    min_numbers parentheses semicolons exclamations bold placeholders lowercase uppercase title_case capital_words
    first_word start_phrase last_word end_phrase end_question divider title postscript json_key fence quoted tagged
"""
_RANK = {name: number for number, name in enumerate(_ORDER.split())}


def constraints_of(text: str) -> dict[str, Reading]:
    """The lines of a conversation that are instructions, in their order."""
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if 8 < len(line) < 300)
    return {line: reading for line in lines if (reading := recognise(line)) is not None}


def without_constraints(text: str) -> str:
    """What else the conversation says."""
    return "\n".join(line for line in text.splitlines() if line.strip() not in constraints_of(text))


def answer(prose: str, readings: list[Reading], ease: float, rng: Random) -> str:
    """The prose, bent by each constraint in turn; with the chance of `1 - ease` it just misses one of them. One may
    undo what another did, as happens to models too."""
    missed = rng.choice(readings) if rng.random() >= ease else None
    for reading in sorted(readings, key=lambda reading: _RANK.get(reading.family.name, len(_RANK) // 2)):
        build = reading.family.violate if reading is missed else reading.family.comply
        prose = build(prose, reading.params, rng)
    return prose
