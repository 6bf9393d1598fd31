"""From the name of a block to its class: short name, `file.py:Class`, or dotted path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from .blocks import BLOCKS
from .options import nearest


def find_block(name: str, folder: Path) -> type[PipelineStep]:
    """The class that a recipe in `folder` means by `name`.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    if name in BLOCKS:
        return _from_module(*BLOCKS[name].rsplit(".", 1))
    if ".py:" in name:
        path, _, class_name = name.rpartition(":")
        return _from_file(str((folder / path).resolve()), class_name)
    module, dot, class_name = name.replace(":", ".").rpartition(".")
    if dot and not name.endswith(".py"):
        return _from_module(module, class_name)
    if name.endswith(".py"):
        raise ValueError(f"'{name}' names a file; name a class in it too: {name}:MyBlock")
    raise ValueError(f"there is no block '{name}'; {nearest(name, BLOCKS, 'blocks')}")


def _from_module(module: str, class_name: str) -> type[PipelineStep]:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(f"there is no module '{error.name}': install it, or mend the path") from error
        raise ValueError(f"{module} needs the package '{error.name}': pip install {error.name}") from error
    except Exception as error:
        raise ValueError(f"importing {module} fails: {type(error).__name__}: {error}") from error
    return _class_in(vars(loaded), class_name, module)


@lru_cache(maxsize=256)
def _from_file(path: str, class_name: str) -> type[PipelineStep]:
    """A class from a file. The file's folder joins `sys.path`, so that worker processes, which get the same path, can
    import the module by its name: a class that a worker cannot import would hang a run of several processes."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {path}")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
        importlib.invalidate_caches()
    known = sys.modules.get(file.stem)
    origin = getattr(known, "__file__", None) or getattr(importlib.util.find_spec(file.stem), "origin", None)
    if not file.stem.isidentifier() or origin is None or Path(origin).resolve() != file:
        raise ValueError(f"the name of {path} is taken by {origin or 'no module'}: rename the file")
    return _from_module(file.stem, class_name)


def _class_in(names: dict[str, object], class_name: str, where: str) -> type[PipelineStep]:
    found = names.get(class_name)
    classes = [name for name, value in names.items() if isinstance(value, type) and issubclass(value, PipelineStep)]
    if found is None:
        raise ValueError(f"{where} has no '{class_name}'; {nearest(class_name, classes, 'blocks')}")
    if not isinstance(found, type) or not issubclass(found, PipelineStep):
        raise ValueError(
            f"{where}.{class_name} is not a block: derive it from Filter, Scorer, Generator, Executor or Block"
        )
    return found
