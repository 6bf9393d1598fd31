"""Blocks of my own: a recipe names them by path, nothing to register."""

import re
from difflib import SequenceMatcher

from autoif_blocks import Filter, Record, Scorer


class NotAnEcho(Filter):
    """Drop responses that mostly repeat their query: they teach nothing."""

    reads = ("query", "response")

    def __init__(self, max_overlap: float = 0.8) -> None:
        super().__init__()
        if not 0 < max_overlap <= 1:
            raise ValueError(f"max_overlap must be in (0, 1], got {max_overlap}")
        self.max_overlap = max_overlap

    def reject(self, record: Record) -> str | None:
        overlap = SequenceMatcher(None, record["query"], record["response"]).ratio()
        return "echo" if overlap > self.max_overlap else None


class WordOverlap(Scorer):
    """Score 0-10 by how many words of the query the response takes up: a judge that costs nothing.

    Args:
        field: the field for the score.
        common_words: so many words in common already make a 10.
    """

    reads = ("query", "response")

    def __init__(self, field: str = "score", common_words: int = 3) -> None:
        super().__init__(field)
        self.common_words = common_words

    def score(self, record: Record) -> float:
        query, response = (set(re.findall(r"[a-z]{4,}", record[field].lower())) for field in self.reads)
        return min(10.0, 10.0 * len(query & response) / self.common_words)
