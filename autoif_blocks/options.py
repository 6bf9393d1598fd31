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
from pydantic_core import ErrorDetails


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
    spellings = {word.lower(): word for word in known}
    if close := get_close_matches(name.lower(), spellings, n=1, cutoff=0.6):
        return f"did you mean '{spellings[close[0]]}'?"
    return f"known {what}: {', '.join(known)}" if known else f"it has no {what}"


def shown(value: Any) -> str:
    """A value as a recipe's writer knows it, short; what a list or mapping holds may be secret or long."""
    if isinstance(value, (list, tuple, dict)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def misfits(cls: type, values: Mapping[str, Any], title: str, check_types: bool = True) -> Iterator[tuple[str, str]]:
    """Pairs of (option, what is wrong with it and what to do)."""
    options = options_of(cls)
    for name, value in values.items():
        if name not in options:
            yield name, f"{title} has no option '{name}'; {nearest(name, options, 'options')}"
        elif check_types and (wrong := _misfit(options[name], value)):
            yield name, wrong
    for name, option in options.items():
        if option.required and name not in values:
            yield "", f"{title} needs the option '{name}' ({option.type_name})"


def fitted(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the constructor wants them: a list becomes a tuple where the annotation says so."""
    options = options_of(cls)
    adapters = {name: adapter_of(options[name].annotation) for name in values}
    return {
        name: value if (adapter := adapters[name]) is None else adapter.validate_json(json.dumps(value), strict=True)
        for name, value in values.items()
    }


def _misfit(option: Option, value: Any) -> str | None:
    adapter = adapter_of(option.annotation)
    if adapter is None:
        return None
    try:
        # As JSON, strictly: a list fits a tuple and 1 fits a float, but "8" is no integer and 1 no boolean.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return _in_words(option, value, error.errors(include_url=False))
    return None


_WORDS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "a text", "bool_type": "true or false", "none_required": "null",
    "list_type": "a list", "tuple_type": "a list", "set_type": "a list", "dict_type": "a mapping",
    "needs_python_object": "an object that only Python code can give",
}  # fmt: skip


def _in_words(option: Option, value: Any, errors: list[ErrorDetails]) -> str:
    """What pydantic found, as `n must be a whole number, got '8': write it without quotes`."""
    place, culprit = option.name, value
    for part in errors[0]["loc"]:  # the names of a union's members stand among the places: they fit nothing
        if isinstance(culprit, list) and isinstance(part, int):
            place, culprit = f"item {part + 1} of {place}", culprit[part]
        elif isinstance(culprit, dict) and part in culprit:
            place, culprit = f"'{part}' of {place}", culprit[str(part)]
    wanted = list(dict.fromkeys(_wanted(error) for error in errors))
    if "a number" in wanted and "a whole number" in wanted:
        wanted.remove("a whole number")
    return f"{place} must be {' or '.join(wanted)}, got {shown(culprit)}{_remedy(option, wanted, culprit)}"


def _wanted(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    said = error["msg"].replace("Input should be ", "", 1).replace("Value error, ", "")
    return _WORDS.get(error["type"], said)


def _remedy(option: Option, wanted: list[str], value: Any) -> str:
    if value is None and not option.required:
        return ": leave the option out to have its default"
    if isinstance(value, str) and {"a whole number", "a number"} & set(wanted) and value.strip().lstrip("-").isdigit():
        return ": write it without quotes"
    if isinstance(value, (int, float)) and "a text" in wanted:
        return ": put it in quotes"
    if not isinstance(value, (list, dict)) and value is not None and "a list" in wanted:
        return f": write [{value if isinstance(value, str) and value.isidentifier() else json.dumps(value)}]"
    return ""


def adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    """A checker of values, if the annotation is one that data can fit; else anything goes."""
    if annotation is Any:
        return None
    try:
        return TypeAdapter(annotation)
    except PydanticUserError:
        try:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except Exception:
            return None
    except Exception:  # other people's annotations can be anything: a string, a module, a function
        return None
