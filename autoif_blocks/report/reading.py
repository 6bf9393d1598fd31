"""One reading of a run's step files: the counts and the samples that the report is made of."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..lineage import Files, read_row
from ..outputs import lines_of, row_id
from ..records import MADE_FROM
from .measures import family, histogram, languages, near_duplicates
from .sample import MOST, End

_PARENTS = re.compile(rb'"made_from": ?\[("[^\]]*)\]')  # in a text, its quotation marks would be escaped
_ACCURACY = re.compile(r"accuracy (\d\.\d\d)")
_LANGUAGE_SAMPLE = 1500  # texts: the detector takes about a millisecond for each
_LISTED = 15  # families, pairs
_CHECKS = ("CrossValidate", "VerifyResponses", "VerifyConstraints", "Decontaminate")  # what they let pass is a rate

Pair = tuple[Counter[float], Counter[float]]
"""counts of a value among the records that survived, or whose children did, and among the others"""


class Reading:
    """Reads all files twice, line by line: first for who descends from whom. Only ids and counts stay in memory."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.ends: dict[End, list[str]] = defaultdict(list)
        self.sizes: Counter[End] = Counter()
        self._values: dict[tuple[str, str], Pair] = defaultdict(lambda: (Counter(), Counter()))
        self._lengths: dict[str, Pair] = defaultdict(lambda: (Counter(), Counter()))
        self._written: Counter[int] = Counter()
        self._stayed: Counter[int] = Counter()
        self._accuracies: Pair = (Counter(), Counter())
        self._instructions: dict[str, None] = {}
        self._answers: Counter[str] = Counter()
        self._survivors: Counter[str] = Counter()
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._unanimous = [0, 0]
        self._pairs: dict[str, Counter[str]] = defaultdict(Counter)
        self._ids: dict[int, set[str]] = {}
        self._parents: set[str] = set()
        self._alive = self._descent()
        seen: set[str] = set()
        for at, step in enumerate(files.steps):
            seen = self._read_step(at, step, seen)

    def _path(self, step: dict[str, Any], folder: str = "") -> Path:
        return self.files.output / folder / str(step["file"])

    def _descent(self) -> set[str]:
        """The ids of those that survived and of all that they descend from; notes all parents on the way."""
        alive: set[str] = set()
        for at, step in reversed(list(enumerate(self.files.steps))):
            ids: set[str] = set()
            for folder in ("", "dropped"):
                for line in lines_of(self._path(step, folder)):
                    if (name := row_id(line)) is None:
                        continue
                    ids.add(name)
                    match = _PARENTS.search(line)
                    parents = re.findall(r'"([^"\\]+)"', match[1].decode("utf-8", "replace")) if match else []
                    self._parents.update(parents)
                    if not folder and (step is self.files.last or name in alive):
                        alive.update((name, *parents))
            self._ids[at] = ids
        return alive

    def _read_step(self, at: int, step: dict[str, Any], before: set[str]) -> set[str]:
        """Reads what a step kept, dropped and discarded; returns the fields that records have behind it.

        Fields that came `before` are no news, unless the record is one that this step has brought itself.
        """
        after = set(before)
        number, name = step["number"], step["name"]
        following = self._ids.get(at + 1)
        previous = self._ids.pop(at - 1, set())
        for row_name, row in _rows(self._path(step)):
            kind = (
                "survived" if step is self.files.last
                else "" if following is not None and row_name in following
                else "became" if row_name in self._parents
                else "unfinished"
            )  # fmt: skip
            if kind:
                self._note(End(number, name, kind), row_name)
            old = before if row_name in previous or MADE_FROM in row else set()
            self._measure(step, row, old, row_name in self._alive)
            self._texts_of(row, old, row_name in self._alive)
            if {"chosen", "rejected"} <= row.keys() and "chosen" not in before:
                self._pairs[name][str(row.get("level", ""))] += 1
            after |= row.keys()
        for row_name, row in _rows(self._path(step, "dropped")):
            self._note(End(number, name, "dropped", str(row.get("reason", ""))), row_name)
            fields = row.get("record")
            if isinstance(fields, dict):
                self._measure(step, fields, before if row_name in previous or MADE_FROM in fields else set(), False)
        for _, row in _rows(self._path(step, "discarded")):
            if match := _ACCURACY.match(str(row.get("detail"))):
                self._accuracies[1][float(match[1])] += 1
        return after

    def _note(self, end: End, name: str) -> None:
        self.sizes[end] += 1
        if len(self.ends[end]) < MOST and (not self.ends[end] or self.ends[end][-1] != name):
            self.ends[end].append(name)

    def _measure(self, step: dict[str, Any], row: dict[str, Any], before: set[str], alive: bool) -> None:
        """Notes the numbers and the lengths of texts that are new in this step."""
        for name, value in row.items():
            if name in before or name == "id":
                continue
            if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
                self._values[step["name"], name][not alive][round(value, 3)] += 1
            elif isinstance(value, str) and name in ("instruction", "response"):
                self._lengths[name][not alive][len(value)] += 1
        verdicts = row.get("verdicts")
        if isinstance(verdicts, list) and "verdicts" not in before:
            self._unanimous[0] += len({str(verdict) for verdict in verdicts}) == 1
            self._unanimous[1] += 1

    def _texts_of(self, row: dict[str, Any], before: set[str], alive: bool) -> None:
        instruction = row.get("instruction")
        if isinstance(instruction, str):
            if "instruction" not in before:
                self._instructions[instruction] = None
            if isinstance(row.get("response"), str) and "response" not in before:
                self._answers[instruction] += 1
                self._survivors[instruction] += alive
        for name in ("instruction", "query", "response"):
            texts = self._texts[name]
            if name not in before and isinstance(row.get(name), str) and len(texts) < _LANGUAGE_SAMPLE:
                texts.append(row[name])
        functions = row.get("functions")
        if isinstance(functions, list):
            if "functions" not in before:
                self._written[len(functions)] += 1
            elif "accuracies" in row and "accuracies" not in before:
                self._stayed[len(functions)] += 1
        accuracies = row.get("accuracies")
        if isinstance(accuracies, list) and "accuracies" not in before:
            known = (x for x in accuracies if isinstance(x, (int, float)) and abs(x) < 1e15)
            self._accuracies[0].update(map(float, known))

    # What the page shows of it

    def table(self) -> list[dict[str, Any]]:
        """The rows of the paper's table on data: what there was, and how much of it stayed."""
        rows: list[dict[str, Any]] = []
        for step in self.files.steps:
            for block in step.get("blocks") or []:
                kind, came, went = block.get("block"), block.get("in", 0), block.get("out", 0)
                told = {
                    "SelfInstruct": ("Instructions", went),
                    "CrossValidate": ("Instructions with functions and cases that agree", went),
                    "JoinQueries": ("Pairs of an instruction and a query", went),
                    "JoinPrompts": ("Prompts: an instruction, alone or with a query", went),
                    "Respond": ("Responses, in total", went),
                    "RateResponses": ("Prompts whose responses the functions have rated", went),
                    "Converse": (
                        "Responses, in total" if block.get("created") else "Prompts that were answered, turn by turn",
                        went,
                    ),
                    "VerifyConstraints": ("Responses that the functions accept", went),
                    "VerifyResponses": ("Responses that the functions accept", went),
                    "Decontaminate": ("Records that have no evaluation prompt in them", went),
                    "FormatSft": ("Records for SFT", went),
                }.get(str(kind))
                if kind == "VerifyConstraints" and (never := _never_followed(block)) is not None:
                    share = (came - never) / came if came else None
                    label = "Prompts that a response follows"
                    rows.append({"label": label, "value": came - never, "share": share, "step": step["name"]})
                    came = 0  # what came is no number of responses
                if told:
                    share = went / came if came and kind in _CHECKS else None
                    rows.append({"label": told[0], "value": told[1], "share": share, "step": step["name"]})
            levels = self._pairs.get(step["name"], Counter())
            told_of = {"Pairs for DPO": levels.total()} if levels else {}
            told_of |= {f"… of the {level} level": levels[level] for level in sorted(levels) if level}
            rows += [{"label": label, "value": n, "share": None, "step": step["name"]} for label, n in told_of.items()]
        return rows

    def numbers(self) -> list[dict[str, Any]]:
        return [
            {"step": step, "field": name, **found}
            for (step, name), (kept, lost) in self._values.items()
            if (found := histogram(kept, lost))
        ]

    def lengths(self) -> list[dict[str, Any]]:
        return [
            {"field": name, **found} for name, (kept, lost) in self._lengths.items() if (found := histogram(kept, lost))
        ]

    def languages(self) -> list[dict[str, Any]]:
        return [
            {"field": name, "texts": len(texts), "counts": languages(texts).most_common()}
            for name, texts in self._texts.items()
            if texts
        ]

    def functions(self) -> dict[str, Any]:
        if not self._written:
            return {}
        sizes = sorted({*self._written, *self._stayed})
        return {
            "counts": [{"functions": n, "written": self._written[n], "stayed": self._stayed[n]} for n in sizes],
            "written": sum(n * count for n, count in self._written.items()),
            "stayed": sum(n * count for n, count in self._stayed.items()),
            "accuracies": histogram(*self._accuracies),
            "unanimous": self._unanimous[0] / self._unanimous[1] if self._unanimous[1] else None,
        }

    def families(self) -> dict[str, Any]:
        texts = list(self._instructions)
        groups: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            groups[family(text)].append(text)
        ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
        pairs = near_duplicates(texts)
        return {
            "instructions": len(texts),
            "families": len(groups),
            "listed": [
                {"family": name, "instructions": len(members), "example": members[0],
                 "responses": sum(self._answers[text] for text in members),
                 "survived": sum(self._survivors[text] for text in members)}
                for name, members in ranked[:_LISTED]
            ],
            "pairs": len(pairs),
            "alike": [
                {"alike": alike, "one": texts[one], "other": texts[other]} for alike, one, other in pairs[:_LISTED]
            ],
        }  # fmt: skip


def _never_followed(block: dict[str, Any]) -> int | None:
    """How many of the prompts no response follows; None if each response came by itself."""
    never = (block.get("dropped") or {}).get("never_followed", 0)
    return int(never) if never or block.get("created") else None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in lines_of(path):
        if (row := read_row(line)) is not None:
            yield row["id"], row
