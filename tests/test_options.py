"""Constructors as schemas: what options a class has, what fits them, and what `autoif blocks` says of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from autoif_blocks import Filter, Record
from autoif_blocks.blocks import BLOCKS
from autoif_blocks.blocks.base import Block
from autoif_blocks.describe import catalogue, description
from autoif_blocks.options import Option, fitted, misfits, nearest, options_of, shown
from autoif_blocks.resolve import find_block

ROOT = Path(__file__).parents[1]


class Parent:
    def __init__(self, first: int, shared: str = "theirs", *rest: Any, last: bool = True) -> None: ...


class Child(Parent):
    def __init__(self, own: float = 1, shared: str = "mine", **options: Any) -> None: ...


class Closed(Child):
    def __init__(self, only: list[str]) -> None: ...


class Unresolved:
    def __init__(self, value: NotThere = 1, plain=2) -> None: ...  # type: ignore[name-defined,no-untyped-def]  # noqa: F821


class Odd:
    def __init__(self, cls: Parent | None = None, function: len = 1) -> None: ...  # type: ignore[valid-type]


@dataclass
class Config:
    number: int
    fraction: float = 0.5
    text: str = ""
    flag: bool = False
    words: tuple[str, ...] = ()
    maybe: int | None = None
    mixed: str | int | float = 0
    choice: Literal["a", "b"] = "a"
    prices: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None


def test_options_come_from_the_signature_and_from_base_classes_as_far_as_they_are_passed_on() -> None:
    found = {name: None if option.required else option.default for name, option in options_of(Child).items()}
    assert found == {"own": 1, "shared": "mine", "first": None, "last": True}
    assert list(options_of(Closed)) == ["only"]
    assert {name: option.annotation for name, option in options_of(Unresolved).items()} == {"value": Any, "plain": Any}
    types = {"int": int, "str | None": str | None, "Mapping[str, float]": Mapping[str, float], "any": Any}
    assert [Option("x", annotation, 0, False).type_name for annotation in types.values()] == list(types)


FITS = [
    ("number", 8), ("fraction", 1), ("fraction", 0.5), ("text", "8"), ("flag", True), ("words", ["a", "b"]),
    ("words", []), ("maybe", None), ("maybe", 3), ("mixed", "> 8"), ("mixed", 8), ("mixed", 0.5), ("choice", "b"),
    ("prices", {"input": 1}), ("anything", [None, {"a": "b"}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FITS)
def test_values_that_fit(name: str, value: object) -> None:
    values = {"number": 1, name: value}
    assert list(misfits(Config, values, "config")) == []
    found = getattr(Config(**fitted(Config, values)), name)
    assert found == (tuple(value) if isinstance(value, list) and name == "words" else value)


MISFITS = [
    ("number", "8", "number must be a whole number, got '8': write it without quotes"),
    ("number", "eight", "number must be a whole number, got 'eight'"),
    ("number", True, "number must be a whole number, got true"),
    ("number", 8.0, "number must be a whole number, got 8.0"),
    ("number", None, "number must be a whole number, got null"),
    ("number", [8], "number must be a whole number, got a list"),
    ("fraction", "-5", "fraction must be a number, got '-5': write it without quotes"),
    ("fraction", None, "fraction must be a number, got null: leave the option out to have its default"),
    ("text", 8, "text must be a text, got 8: put it in quotes"),
    ("text", False, "text must be a text, got false: put it in quotes"),
    ("text", {"a": 1}, "text must be a text, got a mapping"),
    ("flag", "yes", "flag must be true or false, got 'yes'"),
    ("flag", 1, "flag must be true or false, got 1"),
    ("words", "a b", 'words must be a list, got \'a b\': write ["a b"]'),
    ("words", "a", "words must be a list, got 'a': write [a]"),
    ("words", ["a", 2], "item 2 of words must be a text, got 2: put it in quotes"),
    ("maybe", "x", "maybe must be a whole number, got 'x'"),
    ("mixed", ["x"], "mixed must be a text or a number, got a list"),
    ("choice", "c", "choice must be 'a' or 'b', got 'c'"),
    ("prices", {"input": "x"}, "'input' of prices must be a number, got 'x'"),
    ("prices", "x", "prices must be a mapping, got 'x'"),
    ("numbre", 8, "config has no option 'numbre'; did you mean 'number'?"),
    ("xyz", 8, "config has no option 'xyz'; known options: number, fraction, text, flag, words, maybe, mixed, choice, "
     "prices, anything"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), MISFITS)
def test_a_misfit_is_put_in_words(name: str, value: object, said: str) -> None:
    assert list(misfits(Config, {"number": 1, name: value}, "config")) == [(name, said)]


def test_what_is_left_out_or_not_to_be_checked() -> None:
    assert list(misfits(Config, {}, "config")) == [("", "config needs the option 'number' (int)")]
    assert list(misfits(Config, {"number": "x"}, "config", check_types=False)) == []
    assert fitted(Odd, {"function": [2]}) == {"function": [2]}  # an annotation that says nothing forbids nothing
    assert list(misfits(Odd, {"function": 1, "cls": 5}, "odd")) == [
        ("cls", "cls must be an object that only Python code can give, got 5"),
    ]


def test_values_are_shown_short_and_containers_not_at_all() -> None:
    values = [None, True, "x", 1.5, ["secret"], {"k": "secret"}, "x" * 500]
    assert [shown(value) for value in values[:-1]] == ["null", "true", "'x'", "1.5", "a list", "a mapping"]
    assert len(shown(values[-1])) < 90


@pytest.mark.parametrize(
    ("name", "said"),
    [("MAX", "did you mean 'max'?"), ("mni", "did you mean 'Min'?"), ("q", "known words: max, Min")],
)
def test_the_nearest_name_is_suggested(name: str, said: str) -> None:
    assert nearest(name, ["max", "Min"], "words") == said
    assert nearest(name, [], "words") == "it has no words"


# What `autoif blocks` prints


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_tells_what_it_does_and_what_each_option_means(name: str) -> None:
    cls = find_block(name, ROOT)
    assert issubclass(cls, Block)
    text = description(name, cls)
    assert text.startswith(f"{name}  ({cls.kind}, {BLOCKS[name]})\n\n{(cls.__doc__ or '?').splitlines()[0]}")
    lines = text.splitlines()
    for option in options_of(cls).values():
        assert option.annotation is not Any, f"{option.name} has no type"
        (at,) = [
            number for number, line in enumerate(lines) if line.startswith(f"  {option.name}: {option.type_name}  [")
        ]
        assert len(lines[at + 1].strip()) > 10, f"{option.name} has no help"
    assert [line.split(":")[0] for line in lines[-2:]] == ["reads", "writes"]


def test_the_catalogue_has_a_line_for_each_block() -> None:
    lines = catalogue().splitlines()
    for name, line in zip(BLOCKS, lines, strict=False):
        assert line.split()[0] == name
        assert line.split()[1] in {"block", "reader", "join", "generator", "executor", "scorer", "filter", "writer"}
        assert len(line.split(maxsplit=2)[2]) > 20


@dataclass
class Generated(Filter):
    """Keeps everything."""

    share: float = 0.5

    def reject(self, record: Record) -> None:
        return None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pipelines/my_blocks.py:WordOverlap",
         ["(scorer, my_blocks.WordOverlap)", "common_words: int  [default 3]\n      so many words in common",
          "reads:  query, response", "writes: what its options name"]),
        ("pipelines/my_blocks.py:NotAnEcho", ["  max_overlap: float  [default 0.8]", "writes: nothing"]),
        ("datatrove.pipeline.filters.RegexFilter", ["(datatrove block, ", "regex_exp: str  [required]"]),
        ("test_options.Generated", ["Keeps everything.", "share: float  [default 0.5]", "writes: nothing"]),
        ("dedup", ["  on: list[str] | None  [default null]"]),
    ],
)  # fmt: skip
def test_blocks_from_elsewhere_are_described_too(name: str, parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "test_options", sys.modules[__name__])
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = description(name, find_block(name, ROOT))
    assert [part for part in parts if part not in text] == []
