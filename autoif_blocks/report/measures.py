"""The arithmetic of the report: histograms, families of instructions, near-duplicates, languages."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..languages import detector

BINS = 20


def histogram(kept: Mapping[float, int], lost: Mapping[float, int]) -> dict[str, Any]:
    """Two histograms over the same bins, of counted values: `edges` are one more than the bins.

    A few whole numbers get a bin each, centred; all else about twenty bins of a round width. What lies beyond the
    99.5th percentile of a long tail is counted into the last bin, and `more` says so.
    """
    counts = Counter(kept)
    counts.update(lost)
    values = sorted(value for value in counts if math.isfinite(value))
    if not values:
        return {}
    low, high = values[0], values[-1]
    more = False
    if all(value == int(value) for value in values) and high - low <= 1.5 * BINS:
        edges = [low - 0.5 + step for step in range(int(high - low) + 2)]
    else:
        tail = _quantile(counts, values, 0.995)
        if high > low + 2 * (tail - low) > low:
            high, more = tail, True
        width = _round_width((high - low) / BINS or 1)
        start = math.floor(low / width) * width
        count = max(1, math.ceil((high - start) / width + 1e-9))
        edges = [round(start + width * step, 10) for step in range(count + 1)]
    return {"edges": edges, "kept": _binned(kept, edges), "lost": _binned(lost, edges), "more": more}


def _binned(counts: Mapping[float, int], edges: Sequence[float]) -> list[int]:
    bins = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value, count in counts.items():
        if math.isfinite(value):
            at = math.floor((value - edges[0]) / width + 1e-9)
            bins[min(max(at, 0), len(bins) - 1)] += count
    return bins


def _quantile(counts: Mapping[float, int], values: Sequence[float], share: float) -> float:
    left = share * sum(counts[value] for value in values)
    for value in values:
        left -= counts[value]
        if left <= 0:
            return value
    return values[-1]


def _round_width(width: float) -> float:
    size = 10.0 ** math.floor(math.log10(width))
    return next(size * step for step in (1, 2, 2.5, 5, 10) if width <= size * step * (1 + 1e-9))


def family(instruction: str) -> str:
    """What instructions share that differ in numbers and quoted words alone."""
    text = re.sub(r"\"[^\"]*\"|“[^”]*”|‘[^’]*’|'[^']*'(?!\w)|`[^`]*`|「[^」]*」", "“…”", instruction)
    text = re.sub(r"\d+(?:[.,]\d+)*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b", "#", text, flags=re.I)
    text = re.sub(r"(“…”)(?:(?:,| and| or|, and|, or)\s*“…”)+", r"\1", text)
    return " ".join(text.split()).rstrip(" .!?;:").casefold()


def near_duplicates(texts: Sequence[str], threshold: float = 0.8) -> list[tuple[float, int, int]]:
    """Pairs of texts that share at least so much of their words (Jaccard), the most alike first.

    Exact, without comparing all with all: two such sets must share one of their rarest words (prefix filtering).
    """
    sets = [frozenset(re.findall(r"\w+", text.casefold())) for text in texts]
    rarity = Counter(word for words in sets for word in words)
    by_word: dict[str, list[int]] = defaultdict(list)
    found: list[tuple[float, int, int]] = []
    for number, words in enumerate(sets):
        ranked = sorted(words, key=lambda word: (rarity[word], word))
        prefix = ranked[: len(ranked) - math.ceil(threshold * len(ranked)) + 1]
        for other in {other for word in prefix for other in by_word[word]}:
            alike = len(words & sets[other]) / len(words | sets[other])
            if alike >= threshold:
                found.append((round(alike, 3), other, number))
        for word in prefix:
            by_word[word].append(number)
    return sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))


def languages(texts: Iterable[str]) -> Counter[str]:
    """How many of the texts are in each language, by its ISO 639-1 code; `?` where the detector is not sure."""
    found: Counter[str] = Counter()
    for text in texts:
        ranked = detector().rank(text)[:1] if text.strip() else []
        found[ranked[0][0] if ranked and ranked[0][1] >= 0.5 else "?"] += 1
    return found
