"""Records: ids that follow from content, lines that any reader takes, shards that stay where they are."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoif_blocks.accounting import Meter, total
from autoif_blocks.records import (
    Record,
    compact_json,
    content_hash,
    from_row,
    read_json,
    seeded_random,
    shard_of,
    to_line,
    to_row,
)


@dataclass
class Point:
    x: int


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


# Ids


def test_an_id_follows_from_content() -> None:
    assert Record.new("instruction", "a").id == Record.new("instruction", "a", more="fields").id
    assert Record.new("instruction", "a").id != Record.new("instruction", "b").id
    parent = Record.new("p", x=1)
    assert parent.with_(x=2).id == parent.only(y=3).id == parent.id
    assert parent.child("a").id == parent.child("a", y=1).id
    ids = [parent.id, parent.child("a").id, parent.child("b").id, Record.new("q").child("a").id, Record.new("a").id]
    assert len(set(ids)) == len(ids)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_the_parts_of_an_id_are_kept_apart(one: list[str], other: list[str]) -> None:
    assert (content_hash(*one) == content_hash(*other)) == (one == other)


def test_ids_and_draws_stay_as_they_are() -> None:
    """Results and caches of earlier runs hang on these values."""
    assert content_hash("a", "b") == "79cdb4c35a78d18c3ed4"
    assert Record.new("instruction", "Use é").child("query", 1).id == "a5e9e624668f4f185e16"
    assert seeded_random("queries", 0, "id").sample(range(1_000), 3) == [265, 90, 114]
    assert [shard_of(str(i), 7) for i in range(10)] == [4, 2, 1, 1, 6, 1, 0, 4, 6, 5]


def test_ids_do_not_depend_on_the_process() -> None:
    code = "from autoif_blocks.records import Record, seeded_random as r; print(Record.new('a').id, r('b').random())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert said == {f"{Record.new('a').id} {seeded_random('b').random()}\n"}


@pytest.mark.parametrize("shards", [1, 2, 7, 64])
def test_shards_are_even(shards: int) -> None:
    counts = Counter(shard_of(Record.new(i).id, shards) for i in range(200 * shards))
    assert set(counts) == set(range(shards))
    assert all(120 <= count <= 280 for count in counts.values())


# Fields


def test_a_record_is_a_mapping_that_says_what_it_has() -> None:
    record = Record.new("x", a=1, b=2)
    assert (dict(record), len(record)) == ({"a": 1, "b": 2}, 2)
    assert record.get("c") is None
    assert repr(record) == f"Record({record.id}, a, b)"
    with pytest.raises(KeyError, match=f"record {record.id} has no field 'c'; it has a, b"):
        record["c"]
    with pytest.raises(KeyError, match="it has none"):
        Record.new("x")["c"]


def test_children_do_not_share_their_fields() -> None:
    parent = Record.new("p", a=1)
    child = parent.child("c", b=2)
    child.document.metadata["a"] = 9
    assert (dict(parent), dict(child)) == ({"a": 1}, {"a": 9, "b": 2, "made_from": [parent.id]})


def test_a_record_names_those_that_it_descends_from() -> None:
    parent = Record.new("p", a=1)
    child = parent.child("c", b=2)
    grandchild = child.with_(c=3).child("g", d=4)
    assert grandchild["made_from"] == [parent.id, child.id]
    assert child["made_from"] == [parent.id]
    assert parent.only(a=1).child("c")["made_from"] == [parent.id]
    assert Record.new("x", made_from="my own").child("c")["made_from"] == "my own"


# Lines


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_a_line_holds_the_record(fields: dict[str, Any]) -> None:
    record = Record.new("x", **fields) if "distinct" not in fields and "cls" not in fields else Record.new("x")
    line = to_line(to_row(record))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    back = from_row(json.loads(line.decode("utf-8")))
    assert back.id == record.id

    def as_written(value: Any) -> Any:
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))

    assert dict(back) == as_written({name: value for name, value in record.items() if name != "id"})
    assert to_line(to_row(back)) == line


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert to_line({"id": "x", "a": "\ud83d!", "b": "😀"}) == '{"id":"x","a":"?!","b":"😀"}\n'.encode()


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "null"), ("null", '"null"'), (10**40, str(10**40)), ({1: 2}, '{"1":2}'), ("\ud800", '"?"'), (0.1, "0.1")],
    ids=repr,
)
def test_a_line_has_one_form_whatever_stands_in_it(value: object, written: str) -> None:
    row = {"id": "x", "a": [1, {"b": "é\x1b"}], "value": value}
    assert to_line(row) == f'{{"id":"x","a":[1,{{"b":"é\\u001b"}}],"value":{written}}}\n'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_know_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_line({"id": "x", "a": [value]})


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(("make", "said"), [(deep, "too deeply"), (circular, "Circular")])
def test_a_structure_that_json_cannot_follow_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_line({"id": "x", "a": make()})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), Point(1), date(2026, 1, 1)])
def test_a_value_without_a_json_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        to_line({"id": "x", "a": value})


@pytest.mark.parametrize("row", [{}, {"id": 5}, {"id": None, "a": 1}])
def test_a_row_needs_an_id(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs an 'id'"):
        from_row(row)


def test_the_id_stands_first_and_is_no_field() -> None:
    record = Record.new("x", **{"z": 1, "id": "my own", "a": 2})
    assert list(to_row(record).items()) == [("id", record.id), ("z", 1), ("a", 2)]
    back = from_row({"z": 1, "id": "b", "a": 2})
    assert (back.id, dict(back)) == ("b", {"z": 1, "a": 2})


# JSON for machines


@pytest.mark.parametrize(
    ("value", "options", "written"),
    [
        ({"b": [1, None], "a": "é"}, {}, '{"b":[1,null],"a":"é"}'.encode()),
        ({"b": 1, "a": {"d": 2, "c": 3}}, {"sort_keys": True}, b'{"a":{"c":3,"d":2},"b":1}'),
        ({"b": "\ud800", "a": 1}, {}, b'{"b": "\\ud800", "a": 1}'),
        ({"b": "\ud800", "a": 1}, {"sort_keys": True}, b'{"a": 1, "b": "\\ud800"}'),
        ({"a": 2**70}, {}, b'{"a": 1180591620717411303424}'),
    ],
)
def test_what_is_written_can_be_read(value: object, options: dict[str, bool], written: bytes) -> None:
    assert compact_json(value, **options) == written
    assert read_json(written) == read_json(written.decode()) == value


@pytest.mark.parametrize("text", ["", "{", "nope", b"\xff", "[1,]"])
def test_what_is_no_json_is_no_value(text: bytes | str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_json(text)


def test_a_set_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        compact_json({"a": {1}})


# Counts


def test_counts_survive_the_way_through_a_file() -> None:
    meter = Meter(taken=3, created=2, given=4, requests=5, cost=0.5)
    meter.dropped.update({"z": 1})
    meter.discarded.update({"b": 2, "a": 1})
    row = json.loads(json.dumps(meter.to_dict()))
    assert list(row)[:3] == ["in", "created", "out"]
    assert list(row["discarded"]) == ["a", "b"]
    assert Meter.from_dict(row) == meter
    assert meter.balanced
    assert not Meter(taken=1).balanced


def test_a_chain_takes_at_its_first_block_and_gives_at_its_last() -> None:
    first, last = (
        Meter(taken=10, given=8, dropped=Counter(a=2)),
        Meter(taken=8, created=8, given=15, dropped=Counter(b=1)),
    )
    whole = total([first, last])
    assert (whole.taken, whole.created, whole.given, whole.dropped) == (10, 8, 15, Counter(a=2, b=1))
    assert whole.balanced
    assert total([]) == Meter()
