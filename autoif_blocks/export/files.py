"""The files of an export: whole or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..outputs import whole
from ..records import compact_json, to_line
from .layouts import Columns, One

_BATCH = 2000  # rows that Parquet writes at a time


def write_jsonl(target: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes a row a line; returns how many.

    Raises:
        StopRun: the file cannot be written.
    """
    count = 0
    with whole(target) as path, path.open("wb") as file:
        for row in rows:
            try:
                file.write(to_line(row))
            except ValueError as error:  # metadata that JSON cannot hold
                raise RecipeError(f"record {count + 1} cannot be written: {error}; leave out --keep") from error
            count += 1
    return count


def write_parquet(target: Path, rows: Iterable[Mapping[str, Any]], layout: Columns, keep: bool) -> int:
    """The same in Parquet; `metadata`, whose fields differ from recipe to recipe, is a column of JSON.

    Raises:
        RecipeError: pyarrow is not installed.
        StopRun: the file cannot be written.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RecipeError("Parquet needs pyarrow: pip install 'autoif-blocks[parquet]', or name a .jsonl") from error
    kinds = {}
    for name, keys in layout.items():
        kind = arrow.struct([(key, arrow.string()) for key in keys]) if keys else arrow.string()
        kinds[name] = arrow.list_(kind) if keys and not isinstance(keys, One) else kind
    if keep:
        kinds |= {"id": arrow.string(), "metadata": arrow.string()}
    schema = arrow.schema(list(kinds.items()))
    count = 0
    waiting = iter(rows)
    with whole(target) as path, parquet.ParquetWriter(path, schema) as writer:
        while batch := [_flat(row) for row in itertools.islice(waiting, _BATCH)]:
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "metadata": compact_json(row["metadata"]).decode()} if "metadata" in row else dict(row)
