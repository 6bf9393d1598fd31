"""`autoif diff`: which steps of two recipes differ, and what a run of the second asks again after one of the first.

A completion is kept by the request that asked for it. So a step asks all of its requests again if their text, model,
sampling or seed changed; a step below a change asks for those of its records that the change makes new; all else is
replayed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .blocks.kinds import Generator
from .identity import file_of, flatten, short
from .options import options_of
from .plain import plain
from .recipe import Recipe
from .state import RunState
from .steps import BlockSpec, Step

ALL, NEW, MORE, NOTHING = "all again", "what is new", "the samples added", ""
# Options that are in every request of a block; others may bring a few more requests, or decide what becomes of answers.
_IN_REQUESTS = {
    "prompt", "system", "model", "temperature", "top_p", "max_tokens", "stop", "json_schema", "extra", "demonstrations",
}  # fmt: skip
_LINES = 12  # of a text's changes that are shown


@dataclass
class Change:
    """What became of a step."""

    step: str
    what: str
    """`same`, `changed`, `new`, `removed`, or `moved`"""
    told: list[str] = field(default_factory=list)
    asks: str = NOTHING
    """what a run of the second recipe asks of it that a run of the first has not"""


def compare(before: Recipe, after: Recipe) -> list[Change]:
    """The steps of the second recipe in order, then those that it no longer has."""
    old = {step.name: step for step in before.steps}
    kept = [step.name for step in before.steps if step.name in {other.name for other in after.steps}]
    stayed = _in_order(kept, [step.name for step in after.steps if step.name in old])
    models = {name for name in after.models if _asked_of(before, name) != _asked_of(after, name)}
    seed = before.seed != after.seed
    gone = [step for step in before.steps if step.name not in kept]
    changes: list[Change] = []
    above = False  # whether other records may come than before
    done = 0
    for step in after.steps:
        done = old[step.name].number if step.name in old else done
        # A step that was taken out above this one changes what comes, too.
        passed = any(other.number <= done for other in gone)
        if step.name not in old:
            change = Change(step.name, "new", asks=ALL if _asks(step) else NOTHING)
        else:
            told, asks = _differences(old[step.name], step, models, seed)
            what = "changed" if told else "same" if step.name in stayed else "moved"
            if not asks and _asks(step) and (above or passed or what == "moved"):
                asks = NEW
            change = Change(step.name, what, told, asks)
        above |= change.what != "same" or change.asks == ALL or passed
        changes.append(change)
    return changes + [Change(step.name, "removed") for step in gone]


def _in_order(before: list[str], after: list[str]) -> set[str]:
    """Those that stand in the same order in both."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return {before[block.a + i] for block in matcher.get_matching_blocks() for i in range(block.size)}


def _asked_of(recipe: Recipe, model: str) -> Any:
    config = recipe.models.get(model)
    return config and (config.model, dict(config.sampling))


def _asks(step: Step) -> bool:
    return any(issubclass(spec.cls, Generator) for spec in step.blocks)


def _differences(old: Step, new: Step, models: set[str], seed: bool) -> tuple[list[str], str]:
    """What differs between two forms of a step, in words, and what the second asks."""
    told: list[str] = []
    asks: set[str] = set()
    titles = ([spec.title for spec in old.blocks], [spec.title for spec in new.blocks])
    if titles[0] != titles[1]:
        told.append(f"blocks: {', '.join(titles[0])} -> {', '.join(titles[1])}")
        asks |= {ALL} if _asks(new) else set()
    for was, now in zip(old.blocks, new.blocks, strict=False):
        if was.title != now.title:
            continue
        place = f"{now.title}: " if new.blocks[1:] else ""
        first, second = _options(was), _options(now)
        changed = [name for name in {**first, **second} if first.get(name) != second.get(name)]
        for name in changed:
            told += _told(f"{place}{name}", first.get(name), second.get(name))
        if issubclass(now.cls, Generator):
            asks.add(_asks_again(was, now, {*changed}, models, seed))
    return told, next((ask for ask in (ALL, MORE, NEW) if ask in asks), NOTHING)


def _asks_again(was: BlockSpec, now: BlockSpec, changed: set[str], models: set[str], seed: bool) -> str:
    block, earlier = now.build(), was.build()
    assert isinstance(block, Generator)
    assert isinstance(earlier, Generator)
    of_users = not now.cls.__module__.startswith("autoif_blocks.")  # what its options do, only its author knows
    if seed or block.model in models or changed & _IN_REQUESTS or (of_users and changed - {"n"}):
        return ALL
    if block.n > earlier.n:
        return MORE
    return NEW if changed - {"n"} else NOTHING


def _options(spec: BlockSpec) -> dict[str, Any]:
    """The options as data, defaults too, and a user's own code; files by their content, since a recipe may be moved."""
    own = {"block": file_of(spec.file)} if spec.file is not None else {}
    defaults = {option.name: option.default for option in options_of(spec.cls).values() if not option.required}
    options = {**defaults, **spec.options}
    for name in getattr(spec.cls, "files", ()):
        given = options.get(name)
        if isinstance(given, str):
            options[name] = file_of(Path(given))
        elif isinstance(given, list):
            options[name] = [file_of(Path(each)) for each in given]
    return {**own, **options}


def _told(name: str, was: Any, now: Any) -> Iterator[str]:
    if isinstance(was, str) and isinstance(now, str) and ("\n" in was or "\n" in now):
        lines = list(difflib.unified_diff(was.splitlines(), now.splitlines(), n=0, lineterm=""))[2:]
        lines = [line for line in lines if not line.startswith("@@")]
        yield f"{name}:"
        yield from (f"  {line}" for line in lines[:_LINES])
        if len(lines) > _LINES:
            yield f"  … and {len(lines) - _LINES} lines more"
        return
    if isinstance(was, list) and isinstance(now, list):  # what both have would leave no room for the rest
        gone, new = ([item for item in one if item not in other] for one, other in ((was, now), (now, was)))
        was, now = (gone, new) if gone or new else (was, now)
    yield f"{name}: {short(was)} -> {short(now)}"


def _beside_steps(before: Recipe, after: Recipe) -> Iterator[str]:
    """What differs in all else that a recipe says."""
    kept = ("name", "steps")
    flat = [dict(flatten({k: v for k, v in recipe.data.items() if k not in kept}, "")) for recipe in (before, after)]
    for key in sorted({*flat[0], *flat[1]}):
        if flat[0].get(key) != flat[1].get(key):
            yield f"{key}: {short(flat[0].get(key))} -> {short(flat[1].get(key))}"


def show(before: Recipe, after: Recipe) -> None:
    """Prints what differs, and what it costs."""
    spent = _spent(before)
    changes = compare(before, after)
    for line in _beside_steps(before, after):
        click.echo(plain(line))
    for change in changes:
        asks = f"   asks {change.asks}{_cost(spent.get(change.step), change.asks)}" if change.asks else ""
        click.echo(f"{change.what:8} {change.step}{asks}")
        for line in change.told:
            click.echo(plain(f"           {line}"))
    if not any(change.what != "same" or change.asks for change in changes):
        click.echo("a run of the second asks nothing that the first has not asked")


def _spent(recipe: Recipe) -> dict[str, Mapping[str, Any]]:
    """The rows of the first recipe's last run, if it is there."""
    earlier = RunState.earlier(recipe.output_dir) or {}
    return {row["name"]: row["all_commands"] for row in earlier.get("steps", []) if row.get("all_commands")}


def _cost(row: Mapping[str, Any] | None, asks: str) -> str:
    if row is None or asks != ALL or not row.get("requests"):
        return ""
    cost = f", {row['cost']:.2f}" if row.get("cost") else ""
    tokens = row.get("prompt_tokens", 0) + row.get("completion_tokens", 0)
    return f": {row['requests']} requests, {tokens} tokens{cost}"
