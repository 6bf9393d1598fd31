"""`autoif schema`: what a recipe may hold, as JSON Schema: editors complete it, and mark mistakes while one types.

It is made from the same constructors that recipes are checked against. What a schema cannot say (do the steps fit one
another, are the files there?) is left to `autoif check`.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from .blocks import BLOCKS
from .budget import Budget
from .cache import CacheConfig
from .describe import argument_helps, summary
from .models import ModelConfig
from .options import Option, adapter_of, options_of
from .resolve import find_block
from .sandbox import SandboxConfig
from .steps import ExecutorConfig
from .wiring import RESERVED

Schema = dict[str, Any]
SECTIONS = {"sandbox": SandboxConfig, "executor": ExecutorConfig, "budget": Budget, "cache": CacheConfig}
# The environment may supply any value, and YAML's anchors are resolved before a schema is asked.
_FROM_ENVIRONMENT = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
_STEP_NAME = {
    "type": "string",
    "pattern": "^(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]{0,99}$",
    "not": {"enum": sorted(RESERVED)},
    "description": "the name of the step and of its output file",
}


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a recipe."""
    names = list(BLOCKS)
    any_block = {
        "description": "a block's name (`autoif blocks` lists them), file.py:Class, or package.module.Class",
        "anyOf": [{"enum": names}, {"type": "string", "pattern": r"[.:]"}],
    }
    by_name = [
        {"if": {"properties": {"block": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}} for name in names
    ]
    block = {"type": "object", "required": ["block"], "properties": {"block": any_block}, "allOf": by_name}
    blocks = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/block"}}
    step = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": _STEP_NAME},
        "if": {"required": ["blocks"]},
        "then": _object({"name": _STEP_NAME, "blocks": blocks}),
        "else": {"$ref": "#/$defs/block"},
    }
    sections = {name: _options(cls, field_helps(cls), summary(cls)) for name, cls in SECTIONS.items()}
    served = {"required": ["model"], "anyOf": [{"required": ["base_url"]}, {"required": ["serve"]}]}
    models = {"additionalProperties": _options(ModelConfig, field_helps(ModelConfig)) | served}
    word, whole = {"type": "string", "minLength": 1}, {"type": "integer"}
    interval = {"type": "number", "exclusiveMinimum": 0, "default": 5}
    top: dict[str, Schema] = {
        "name": {**word, "description": "the recipe's name; by default its file's"},
        "seed": {**whole, "default": 0, "description": "every random choice follows from it"},
        "text": {**word, "description": "the field that datatrove's own blocks see as a record's text"},
        "output_dir": {**word, "default": "output", "description": "where results go: a folder, or a URL like s3://…"},
        "cache_dir": {**word, "description": "where completions are kept; by default beside the results"},
        "work_dir": {**word, "description": "the folder in which runs into a URL work; by default one of the user's"},
        "send_interval": {**interval, "default": 60, "description": "seconds between two sendings to a URL"},
        "flush_interval": {**interval, "description": "seconds between two writes of the cache"},
        "models": {**models, "type": ["object", "null"], "description": "the models that steps name"},
        **{name: section | {"type": ["object", "null"]} for name, section in sections.items()},
        "target": {**whole, "minimum": 1, "description": "go on until so many records have come to the end"},
        "shards": {**whole, "minimum": 1, "description": "the last step's records stand in so many files, not in one"},
        "steps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}, "description": "in their order"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a recipe of AutoIF Blocks",
        **_object({name: _or_environment(part) for name, part in top.items()}),
        "required": ["steps"],
        "$defs": {"step": step, "block": block, **{name: _block(name) for name in names}},
    }


def _block(name: str) -> Schema:
    cls = find_block(name, Path())
    found = _options(cls, argument_helps(cls), summary(cls))
    found["properties"] = {"name": {}, "block": {"const": name}, **found["properties"]}
    return found


def _object(properties: Mapping[str, Any]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _options(cls: type, helps: Mapping[str, str], description: str = "") -> Schema:
    """An object with the options of a class."""
    options = options_of(cls).values()
    found = _object({option.name: _option(option, helps.get(option.name, "")) for option in options})
    if required := [option.name for option in options if option.required]:
        found["required"] = required
    return found | ({"description": description} if description else {})


def _option(option: Option, description: str) -> Schema:
    adapter = adapter_of(option.annotation)
    found: Schema = {}
    if adapter is not None:
        with contextlib.suppress(Exception):  # an annotation of somebody else's: anything goes
            found = adapter.json_schema()
    if description:
        found["description"] = description
    if not option.required:
        with contextlib.suppress(TypeError):  # a default that is no JSON, of a block of one's own
            found["default"] = orjson.loads(orjson.dumps(option.default))
    return _or_environment(found)


def _or_environment(found: Schema) -> Schema:
    """The same, or `${NAME}`, where that would not be a text already."""
    kinds = [found.get("type"), *(part.get("type") for part in found.get("anyOf", ()))]
    if not {"integer", "number", "boolean"} & {kind for kind in kinds if isinstance(kind, str)} or "string" in kinds:
        return found
    about: Schema = {key: found.pop(key) for key in ("description", "default") if key in found}
    return {**about, "anyOf": [*found.pop("anyOf", [found]), _FROM_ENVIRONMENT]}


def field_helps(cls: type) -> dict[str, str]:
    """The text under each field of a class."""
    return dict(_texts_under(ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]))


def _texts_under(tree: ast.stmt) -> Iterator[tuple[str, str]]:
    assert isinstance(tree, ast.ClassDef)
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            with contextlib.suppress(ValueError):
                yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split())
