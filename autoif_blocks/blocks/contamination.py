"""`decontaminate`: what models are tested with shall not be what they are trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.data import Document

from ..errors import StopRun
from ..languages import words_of
from ..records import Record
from .kinds import Filter
from .queries import query_of
from .readers import numbered_lines, problems_of, rows_of

_FEW = 5  # words: a run of fewer is in everybody's mouth
_SHOWN = 80  # characters


class Prompt(NamedTuple):
    """An evaluation prompt."""

    place: str
    """file:line"""
    words: list[str]


class Decontaminate(Filter):
    """Drops records that share text with evaluation prompts, by either of two rules.

    `evaluation_ngram`: a run of `ngram` words of a prompt stands in the record. A prompt that is shorter must stand in
    it whole; one of fewer than five words must be all that one of the fields says. `evaluation_overlap`: more than
    `overlap` of a prompt's words lie in runs of `overlap_ngram` words that stand in the record too. Words are compared
    in lower case, without punctuation; in Chinese, Japanese and Thai each character counts as one. The drop log says
    which prompt, as file:line, and which words.

    Args:
        against: files with evaluation prompts, `.jsonl` or text with a prompt a line; patterns too, `evals/*.jsonl`.
        fields: the record's fields that are searched, as one text in this order.
        key: the key of a JSONL file that holds the prompt; null takes `prompt`, `query`, `text`, `messages`, …
        ngram: words in a run; 13 as in the paper.
        overlap_ngram: words in a run of the second rule.
        overlap: the share of a prompt's words, 0 to 1, above which the second rule holds; 1 turns it off.
    """

    files = ("against",)

    def __init__(
        self,
        against: list[str],
        fields: list[str] | None = None,
        key: str | None = None,
        ngram: int = 13,
        overlap_ngram: int = 8,
        overlap: float = 0.5,
    ) -> None:
        super().__init__()
        if not against:
            raise ValueError("against must name at least one file with evaluation prompts")
        for name, value in (("ngram", ngram), ("overlap_ngram", overlap_ngram)):
            if value < _FEW:
                raise ValueError(f"{name} must be at least {_FEW}, got {value}")
        if fields == []:
            raise ValueError("fields must name at least one, or be left out for query and instruction")
        if not 0 <= overlap <= 1:
            raise ValueError(f"overlap must be in [0, 1], got {overlap}")
        self.against = against
        self.fields = fields or ["query", "instruction"]
        self.key = key
        self.ngram = ngram
        self.overlap_ngram = overlap_ngram
        self.overlap = overlap
        self.reads = tuple(self.fields)

    def check(self) -> Iterable[str]:
        return [problem for path in self.against for problem in problems_of(self._prompts(path), path)]

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        try:
            self._index([prompt for path in self.against for prompt in self._prompts(path)])
        except ValueError as error:
            raise StopRun(str(error)) from error
        yield from super().run(data, rank, world_size)

    def reject(self, record: Record) -> tuple[str, str] | None:
        parts = [words_of(str(record[field])) for field in self.fields]
        words = [word for part in parts for word in part]
        for part in parts:
            if len(part) < _FEW and (prompt := self._few.get(" ".join(part))):
                return "evaluation_ngram", _told(prompt, part)
        for length, runs in self._runs.items():
            for _, run in _runs_of(words, length):
                if prompt := runs.get(run):
                    return "evaluation_ngram", _told(prompt, run.split(" "))
        return self._overlapping(words)

    def _overlapping(self, words: Sequence[str]) -> tuple[str, str] | None:
        covered: dict[int, set[int]] = defaultdict(set)
        for run in {run for _, run in _runs_of(words, self.overlap_ngram)}:
            for number, start in self._places.get(run, ()):
                covered[number].update(range(start, start + self.overlap_ngram))
        for number in sorted(covered):
            prompt, shared = self._whole[number], covered[number]
            if len(shared) > self.overlap * len(prompt.words):
                said = [prompt.words[place] for place in sorted(shared)]
                return "evaluation_overlap", _told(prompt, said, f"{len(shared)} of its {len(prompt.words)}")
        return None

    def _prompts(self, path: str) -> Iterator[Prompt]:
        if Path(path).suffix not in (".jsonl", ".ndjson", ".json"):
            texts = numbered_lines(path)
        else:
            texts = ((number, self._text(row, f"{path}:{number}")) for number, row in rows_of(path))
        for number, text in texts:
            if not (words := words_of(text)):
                raise ValueError(f"{path}:{number}: the evaluation prompt has no word: mend or delete the line")
            yield Prompt(f"{Path(path).name}:{number}", words)

    def _text(self, row: dict[str, Any], place: str) -> str:
        try:
            text = query_of(row) if self.key is None else row[self.key]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{place}: no prompt: name its key with `key`; the line has {', '.join(row)}") from error
        if not isinstance(text, str):
            raise ValueError(f"{place}: '{self.key}' must be a text, got {str(text)[:40]}")
        return text

    def _index(self, prompts: Sequence[Prompt]) -> None:
        """By their words; of prompts that share a run the first is named."""
        self._whole = prompts
        self._few: dict[str, Prompt] = {}
        self._runs: dict[int, dict[str, Prompt]] = defaultdict(dict)
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, prompt in enumerate(prompts):
            if len(prompt.words) < _FEW:
                self._few.setdefault(" ".join(prompt.words), prompt)
                continue
            length = min(self.ngram, len(prompt.words))
            for _, run in _runs_of(prompt.words, length):
                self._runs[length].setdefault(run, prompt)
            if self.overlap < 1:
                for start, run in _runs_of(prompt.words, self.overlap_ngram):
                    self._places[run].append((number, start))

    def __getstate__(self) -> dict[str, Any]:
        made = {"_whole", "_few", "_runs", "_places"}
        return {name: value for name, value in self.__dict__.items() if name not in made}


def _runs_of(words: Sequence[str], length: int) -> Iterator[tuple[int, str]]:
    return ((start, " ".join(words[start : start + length])) for start in range(len(words) - length + 1))


def _told(prompt: Prompt, shared: Sequence[str], count: str = "") -> str:
    said = " ".join(shared)
    said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
    return f"{prompt.place}, {count or len(shared)} words: {said}"
