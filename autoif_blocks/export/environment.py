"""`--format verifiers`: the prompts as a Python package for the `verifiers` library; its reward runs in our sandbox."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .files import write_jsonl

_CODE = Path(__file__).with_name("environment.py.txt")
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "Instructions that programs check, as an environment for reinforcement learning."
requires-python = ">=3.11"
dependencies = ["verifiers>=0.4,<0.5", "autoif-blocks", "httpx"]

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""


def module_of(folder: Path) -> str:
    """The name of the package in a folder.

    Raises:
        RecipeError: the folder's name cannot be one.
    """
    module = folder.name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        hint = "name the folder with letters, digits and hyphens, like autoif-constraints"
        raise RecipeError(f"'{folder.name}' cannot be the name of a Python package: {hint}")
    return module


def write_environment(folder: Path, module: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the package; returns how many prompts it has.

    Raises:
        StopRun: it cannot be written.
    """
    count = write_jsonl(folder / module / "data.jsonl", rows)
    (folder / module / "__init__.py").write_text(_CODE.read_text(encoding="utf-8"), encoding="utf-8")
    project = _PROJECT.format(name=module.replace("_", "-"), module=module)
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    return count
