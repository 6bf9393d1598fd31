"""From what a recipe says of a server that the run starts to what starting it takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from .errors import RecipeError
from .models import ModelConfig
from .resolve import SERVERS, find_server, loaded_from
from .serving import ServerSpec


def server_specs(models: Mapping[str, ModelConfig], used: Collection[str], folder: Path) -> dict[str, ServerSpec]:
    """The servers that the models `used` by a recipe in `folder` need the run to start. Models that differ in nothing
    that a server is started with share one.

    Raises:
        RecipeError: the server is not installed.
    """
    specs: dict[str, ServerSpec] = {}
    for name in used:
        if models[name].serve:
            spec = _spec(name, models[name], folder)
            same = (known for known in specs.values() if replace(known, name=name) == spec)
            specs[name] = next(same, spec)
    return specs


def not_installed(config: ModelConfig) -> str:
    """The remedy where the server of a model is not installed; nothing where it is."""
    if config.serve not in SERVERS or find_spec(config.serve) is not None:
        return ""
    return f"serve: {config.serve} needs the package {config.serve} where the run starts it: pip install {config.serve}"


def _spec(name: str, config: ModelConfig, folder: Path) -> ServerSpec:
    if remedy := not_installed(config):
        raise RecipeError(f"model '{name}': {remedy}")
    cls = find_server(config.serve, folder)
    file = loaded_from(cls)
    options = {
        "model_name_or_path": config.model, "model_max_context": config.context,
        "tp": config.tp, "dp": config.dp, "pp": config.pp, "model_kwargs": dict(config.serve_options),
    }  # fmt: skip
    return ServerSpec(
        name, config.serve, cls.__module__, cls.__qualname__, str(file.parent) if file else "",
        config.start_timeout, options,
    )  # fmt: skip
