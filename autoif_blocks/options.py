"""A constructor's signature is a schema: which options a block or a part of a recipe has, and whether values fit them.

There is no second description beside the code. An `__init__` that takes `**options` has its base class's options too.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError


@dataclass(frozen=True)
class Option:
    """One keyword argument of a constructor."""

    name: str
    annotation: Any
    default: Any
    required: bool

    @property
    def type_name(self) -> str:
        name = self.annotation.__name__ if isinstance(self.annotation, type) else str(self.annotation)
        return "any" if self.annotation is Any else name.replace("typing.", "").replace("collections.abc.", "")


def options_of(cls: type) -> dict[str, Option]:
    """The options of a class, in the order of its signature."""
    found: dict[str, Option] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        try:
            hints = typing.get_type_hints(vars(base)["__init__"])
        except Exception:  # annotations of other people's classes need not resolve
            hints = {}
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.name in found:
                continue
            required = parameter.default is parameter.empty
            annotation = hints.get(parameter.name, Any)
            found[parameter.name] = Option(parameter.name, annotation, parameter.default, required)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def nearest(name: str, known: Collection[str], what: str) -> str:
    """The second half of an error about an unknown name: the likeliest one meant, or all there are."""
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean '{close[0]}'?"
    return f"known {what}: {', '.join(known)}" if known else f"it has no {what}"


def misfits(cls: type, values: Mapping[str, Any], title: str, check_types: bool = True) -> Iterator[tuple[str, str]]:
    """Pairs of (option, what is wrong with it and what to do)."""
    options = options_of(cls)
    for name, value in values.items():
        if name not in options:
            yield name, f"{title} has no option '{name}'; {nearest(name, options, 'options')}"
        elif check_types and (wrong := _misfit(options[name], value)):
            yield name, f"{name} {wrong}"
    for name, option in options.items():
        if option.required and name not in values:
            yield "", f"{title} needs the option '{name}' ({option.type_name})"


def fitted(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the constructor wants them: a list becomes a tuple where the annotation says so."""
    options = options_of(cls)
    adapters = {name: _adapter(options[name].annotation) for name in values}
    return {
        name: value if (adapter := adapters[name]) is None else adapter.validate_json(_json(value), strict=True)
        for name, value in values.items()
    }


def _misfit(option: Option, value: Any) -> str | None:
    adapter = _adapter(option.annotation)
    if adapter is None:
        return None
    try:
        # As JSON, strictly: a list fits a tuple and 1 fits a float, but "8" is no integer and 1 no boolean.
        adapter.validate_json(_json(value), strict=True)
    except ValidationError as error:
        wrong = list(dict.fromkeys(_lower(problem["msg"]) for problem in error.errors()))
        return f"{' or '.join(wrong)}, got {value!r}"
    return None


def _lower(message: str) -> str:
    return message.replace("Input should be", "must be", 1).replace("Value error, ", "")


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    if annotation is Any:
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, SchemaError):
        try:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except (PydanticUserError, SchemaError):
            return None
