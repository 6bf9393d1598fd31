"""From the name of a block to its class: short name, `file.py:Class`, or dotted path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
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
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(folder, path, class_name)
    if name.endswith(".py"):
        raise ValueError(f"'{name}' names a file; name a class in it too: {name}:MyBlock")
    module, dot, class_name = name.replace(":", ".").rpartition(".")
    if not dot:
        raise ValueError(f"there is no block '{name}'; {nearest(name, BLOCKS, 'blocks')}")
    if not all(part.isidentifier() for part in (*module.split("."), class_name)):
        raise ValueError(f"'{name}' is no path to a class: write my_blocks.py:MyBlock or package.module.MyBlock")
    beside = f"{module.replace('.', '/')}.py"
    hint = f"write {beside}:{class_name}" if _is_file(folder / beside) else "install it, or mend the path"
    return _from_module(module, class_name, hint)


def _from_module(module: str, class_name: str, hint: str = "install it, or mend the path") -> type[PipelineStep]:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if module == missing or module.startswith(f"{missing}."):
            raise ValueError(f"there is no module '{missing}': {hint}") from error
        raise ValueError(f"{module} needs the package '{missing}': pip install {missing.split('.')[0]}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module} fails: {type(error).__name__}: {error}") from error
    return _class_in(vars(loaded), class_name, module)


_loaded: dict[str, tuple[Path, int, Path]] = {}
"""our users' modules by name: the file that each came from, when it had last been changed, and the recipe's folder"""


def _from_file(folder: Path, name: str, class_name: str) -> type[PipelineStep]:
    """A class from a file. The file's folder joins `sys.path`, so that worker processes, which get the same path, can
    import the module by its name: a class that a worker cannot import would hang a run of several processes.

    A file that was edited is read again, and so is one of the same name in another recipe's folder. Two of one name in
    one recipe are refused: a worker could import only one of them.
    """
    file = folder / name
    if not _is_file(file):
        raise ValueError(f"there is no file {file}: paths are relative to the recipe")
    file = file.resolve()
    module = file.stem
    if not module.isidentifier():
        raise ValueError(f"'{module}' cannot be a Python module: rename {name}, with letters, digits and _ only")
    changed = file.stat().st_mtime_ns
    before, before_changed, before_folder = _loaded.get(module, (file, changed, folder))
    if before_folder != folder if before != file else before_changed != changed:
        sys.modules.pop(module, None)
        if before != file and str(before.parent) in sys.path:
            sys.path.remove(str(before.parent))  # else workers would import the other file
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    importlib.invalidate_caches()
    origin = _origin(module)
    if origin is None or Path(origin).resolve() != file:
        raise ValueError(f"the name '{module}' is taken by {origin or 'another module'}: rename {name}")
    found = _from_module(module, class_name)
    _loaded[module] = (file, changed, folder)
    return found


def loaded_from(cls: type) -> Path | None:
    """The file beside a recipe that a class came from; None if it is of an installed package."""
    return _loaded[cls.__module__][0] if cls.__module__ in _loaded else None


def _is_file(path: Path) -> bool:
    try:
        return path.resolve().is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle
        return False


def _origin(module: str) -> str | None:
    """The file that `import module` means."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None) or "Python itself"
    spec = importlib.util.find_spec(module)
    return spec.origin if spec is not None else None


def _class_in(names: Mapping[str, object], class_name: str, where: str) -> type[PipelineStep]:
    found = names.get(class_name)
    if found is None:
        blocks = [name for name, value in names.items() if _is_block(value)]
        own = [name for name in blocks if getattr(names[name], "__module__", None) == where]
        raise ValueError(f"{where} has no '{class_name}'; {nearest(class_name, own or blocks, 'blocks')}")
    if not _is_block(found):
        raise ValueError(
            f"{where}.{class_name} is not a block: derive it from Filter, Scorer, Generator, Executor or Block"
        )
    return found  # type: ignore[return-value]


def _is_block(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, PipelineStep)
