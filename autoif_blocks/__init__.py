"""AutoIF Blocks: verified instruction-following data, as blocks that a recipe wires together.

    from autoif_blocks import AutoIF, Recipe          # run recipes
    from autoif_blocks import Filter, Record          # write a block

See `blocks/base.py` for the contract of a block and `recipe.py` for recipes.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .autoif import AutoIF
    from .blocks.base import Block
    from .blocks.kinds import Executor, Filter, Generator, Scorer
    from .blocks.readers import Reader
    from .errors import AutoIFError, DropRecord, ModelUnavailable, RecipeError, SandboxUnavailable, StopRun
    from .recipe import Recipe
    from .records import Record
    from .run import RunOptions
    from .sandbox import Outcome

# loguru, datatrove's logger, prints the variables of every frame beside a traceback: an Authorization header, say.
os.environ["LOGURU_DIAGNOSE"] = "NO"

# Imported when first used: `autoif --help` must not wait for datatrove and aiohttp.
_HOMES = {
    "AutoIF": "autoif",
    "Block": "blocks.base",
    **dict.fromkeys(("Executor", "Filter", "Generator", "Scorer"), "blocks.kinds"),
    **dict.fromkeys(
        ("AutoIFError", "DropRecord", "ModelUnavailable", "RecipeError", "SandboxUnavailable", "StopRun"), "errors"
    ),
    "Outcome": "sandbox",
    "Reader": "blocks.readers",
    "Recipe": "recipe",
    "Record": "records",
    "RunOptions": "run",
}

__all__ = [
    "AutoIF",
    "AutoIFError",
    "Block",
    "DropRecord",
    "Executor",
    "Filter",
    "Generator",
    "ModelUnavailable",
    "Outcome",
    "Reader",
    "Recipe",
    "RecipeError",
    "Record",
    "RunOptions",
    "SandboxUnavailable",
    "Scorer",
    "StopRun",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'autoif_blocks' has no attribute '{name}'")
