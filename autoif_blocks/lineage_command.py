"""`autoif trace` and `autoif why`: a record's whole way in the terminal, and why one is not there any more."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from .errors import RecipeError
from .lineage import Files, Link, Sighting, Trail
from .plain import one_line, plain
from .records import MADE_FROM, SEEDS

LISTED = 20
_SHORT = 160  # characters of a case or of an example
_CODE = ("functions", "cases", "case_verdicts", "accuracies", "verdicts")

Line = tuple[str, str]
"""a style, and the words"""


def trace(output: str | Path, record_id: str) -> None:
    """Prints the way of a record, step by step, from the first that it descends from.

    Raises:
        RecipeError: there is no such run or record.
        StopRun: a remote directory cannot be read.
    """
    files = Files.at(output)
    told: dict[str, Any] = {}
    for link in files.chain(record_id):
        _print(_way(link, told))
    _print(_end(files, link.trail))


def why(output: str | Path, wanted: str) -> None:
    """Prints what became of the record with this id, or of those that hold this text.

    Raises:
        RecipeError: there is no such run, or no such record.
        StopRun: a remote directory cannot be read.
    """
    if not wanted.strip():
        raise RecipeError("name a record's id, or some text of it")
    files = Files.at(output)
    found = files.trails([wanted]) or files.matching(wanted)
    if not found:
        raise RecipeError(f"no record of {files.called} has the id or the text '{one_line(wanted)}'")
    if len(found) > 1:
        _print(_list(files, list(found.values())))
        return
    (trail,) = found.values()
    _print([("bold", f"{trail.id}  {_title(trail)}"), *_end(files, trail), *_evidence(trail)])


def _print(lines: Iterator[Line] | list[Line]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    for style, words in lines:
        console.print(Text(plain(words), style=style), soft_wrap=True)


def _way(link: Link, told: dict[str, Any]) -> Iterator[Line]:
    """What each step did to a record; `told` are the fields that the reader has seen."""
    trail = link.trail
    yield "bold", f"{trail.id}  {_title(trail)}"
    step = 0
    for seen in trail.sightings:
        if seen.number != step:
            step = seen.number
            yield "cyan", f"  {seen.number} {seen.step}"
        if seen.kind == "discarded":
            yield "dim", f"    left out: {_reason(seen)}"
            continue
        if seen.kind == "dropped" and seen is not trail.dropped:
            yield "dim", f"    an equal one was dropped: {_reason(seen)}"
            continue
        if step == trail.first:
            yield from _made(link)
        yield from _fields(seen.fields, told)
        told.update(seen.fields)
        if seen.kind == "dropped":
            yield "red", f"    dropped: {_reason(seen)}"


def _made(link: Link) -> list[Line]:
    """How a record of the first step came to be, where its file tells."""
    if link.seeds:
        shown = [("dim", f"      {one_line(_title(seed), _SHORT)}") for seed in link.seeds]
        return [("", "    new, written after these seeds:"), *shown]
    fields = link.trail.fields
    if SEEDS in fields:
        return [("", "    new, written after all seeds")] if fields[SEEDS] == [] else []
    return [] if MADE_FROM in fields else [("", "    read, not written by a model")]


def _fields(fields: dict[str, Any], told: dict[str, Any]) -> Iterator[Line]:
    """The fields that are new or have changed."""
    fresh = {
        name: value for name, value in fields.items() if name not in (MADE_FROM, SEEDS) and told.get(name, ...) != value
    }
    for name, value in fresh.items():
        if name not in _CODE:
            yield from _field(name, value)
    before, functions = _texts(told.get("functions")), _texts(fresh.get("functions"))
    if functions and set(functions) <= set(before):
        kept = [before.index(code) + 1 for code in functions]
        yield "", f"    functions: {len(kept)} of {len(before)} stay: {', '.join(map(str, kept))}"
    else:
        for number, code in enumerate(functions, 1):
            yield from _block(f"function {number}", code)
    yield from _cases(fields, fresh)
    verdicts = fresh.get("verdicts")
    if isinstance(verdicts, list):
        yield "", f"    functions say: {', '.join(map(_said, verdicts))}"


def _field(name: str, value: Any) -> Iterator[Line]:
    if isinstance(value, str):
        yield from _block(name, value)
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        for number, item in enumerate(value, 1):
            yield from _block(f"{name} {number}", item)
    else:
        yield "", f"    {plain(name)}: {plain(json.dumps(value, ensure_ascii=False))}"


def _block(title: str, text: str) -> Iterator[Line]:
    """A text under its name, or beside it if it has one line."""
    first, *rest = plain(text).strip("\n").split("\n")
    if not rest:
        yield "", f"    {plain(title)}: {first}"
        return
    yield "", f"    {plain(title)}:"
    for line in (first, *rest):
        yield "", f"      {line}"


def _cases(fields: dict[str, Any], fresh: dict[str, Any]) -> Iterator[Line]:
    """Each case with what it expects, and what each function said where that is known."""
    cases, verdicts = fields.get("cases"), fresh.get("case_verdicts")
    if not isinstance(cases, list) or not {"cases", "case_verdicts"} & set(fresh):
        return
    table = _matrix(verdicts, len(cases))
    if table:
        accuracies = fields.get("accuracies")
        told = f"; accuracies {plain(json.dumps(accuracies))}" if isinstance(accuracies, list) else ""
        yield "", f"    {len(cases)} cases; a column a function, + agrees, - does not, ! failed{told}"
    else:
        yield "", f"    {len(cases)} cases"
    for number, case in enumerate(cases):
        wanted = case.get("output") if isinstance(case, dict) else None
        text = case.get("input") if isinstance(case, dict) else case
        marks = "".join(_mark(row[number], wanted) for row in table)
        yield "", f"      {marks + '  ' if marks else ''}{_said(wanted):5}  {one_line(str(text), _SHORT)}"


def _matrix(verdicts: Any, cases: int) -> list[list[Any]]:
    whole = isinstance(verdicts, list) and all(isinstance(row, list) and len(row) == cases for row in verdicts)
    return verdicts if whole else []


def _mark(verdict: Any, wanted: Any) -> str:
    if not isinstance(verdict, bool):
        return "!"
    return "+" if verdict == wanted else "-"


def _said(verdict: Any) -> str:
    return plain(str(verdict)).lower()


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _reason(seen: Sighting) -> str:
    reason, detail = str(seen.row.get("reason", "")), str(seen.row.get("detail", ""))
    return f"{plain(reason)}: {one_line(detail, 300)}" if detail else plain(reason)


def _title(trail: Trail) -> str:
    """The text that says best what a record is."""
    fields = trail.fields
    names = [name for name in ("response", "query", "instruction") if isinstance(fields.get(name), str)]
    texts = [fields[names[0]]] if names else [value for value in fields.values() if isinstance(value, str)]
    return one_line(texts[0]) if texts else ""


def _end(files: Files, trail: Trail) -> list[Line]:
    """What became of a record."""
    dropped, kept = trail.dropped, trail.kept
    equals = sum(seen.kind == "dropped" and seen.row.get("reason") == "duplicate" for seen in trail.sightings)
    twins = [("dim", f"{equals} equal to it were dropped as duplicates")] if equals and not dropped else []
    if dropped is not None:
        by = f" ({plain(str(dropped.row['block']))})" if "block" in dropped.row else ""
        return [("red", f"dropped at step {dropped.number} {dropped.step}{by}: {_reason(dropped)}")]
    if kept is None:
        return [("yellow", f"never a record of its own: left out of another: {_reason(trail.sightings[0])}")]
    if kept.number == files.last["number"]:
        return [("green", f"survived: it is in {files.place(files.last)}"), *twins]
    if children := files.offspring(trail.id):
        return [("green", f"became {len(children)} records, after step {kept.number} {kept.step}:"), *twins,
                *(("", f"  {count} {end}") for end, count in _ends(files, children).most_common())]  # fmt: skip
    state = plain(str(files.run.get("state", "unfinished")))
    return [("yellow", f"survived step {kept.number} {kept.step}, and went no further: the run is {state}"), *twins]


def _ends(files: Files, trails: dict[str, Trail]) -> Counter[str]:
    return Counter(_ending(files, trail) for trail in trails.values())


def _ending(files: Files, trail: Trail) -> str:
    """In a few words."""
    if (left := trail.dropped) is not None:
        return f"dropped at {left.number} {left.step}: {plain(str(left.row.get('reason')))}"
    kept = trail.kept
    if kept is None:
        return f"left out: {plain(str(trail.sightings[0].row.get('reason')))}"
    return "survived" if kept.number == files.last["number"] else f"up to {kept.number} {kept.step}"


def _evidence(trail: Trail) -> Iterator[Line]:
    """What a record that was dropped had when it was, and what was left out of it in that step."""
    dropped = trail.dropped
    if dropped is None:
        return
    for seen in trail.sightings:
        if seen.kind == "discarded" and seen.number == dropped.number:
            yield "dim", f"    left out: {_reason(seen)}"
    fields = dropped.fields
    verdicts, functions = fields.get("verdicts"), _texts(fields.get("functions"))
    if isinstance(verdicts, list) and len(verdicts) <= len(functions):
        for number, (verdict, code) in enumerate(zip(verdicts, functions, strict=False), 1):
            if verdict is not True:
                yield from _block(f"function {number} says {_said(verdict)}", code)
        fields = {name: value for name, value in fields.items() if name not in ("functions", "verdicts")}
    yield from _fields(fields, {})


def _list(files: Files, trails: list[Trail]) -> Iterator[Line]:
    yield "", f"{len(trails)} records; name one by its id:"
    for trail in trails[:LISTED]:
        yield "", f"  {trail.id}  {_ending(files, trail)}  {_title(trail)}"
    if len(trails) > LISTED:
        rest = Counter(_ending(files, trail) for trail in trails[LISTED:])
        yield "dim", f"  and {len(trails) - LISTED} more: {', '.join(f'{n} {end}' for end, n in rest.most_common())}"
