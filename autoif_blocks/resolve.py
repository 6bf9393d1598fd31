"""From the name of a block, or of a server, to its class: short name, `file.py:Class`, or dotted path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import isabstract
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from .blocks import BLOCKS
from .options import nearest

SERVERS = {
    "vllm": "datatrove.pipeline.inference.servers.vllm_server.VLLMServer",
    "sglang": "datatrove.pipeline.inference.servers.sglang_server.SGLangServer",
}


@dataclass(frozen=True)
class _Kind:
    """A kind of class that a recipe can name."""

    name: str
    base: type
    known: Mapping[str, str]
    """the short names"""
    bases: str
    """what one's own is derived from"""


_BLOCK = _Kind("block", PipelineStep, BLOCKS, "Filter, Scorer, Generator, Executor or Block")


def find_block(name: str, folder: Path) -> type[PipelineStep]:
    """The class that a recipe in `folder` means by `name`.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    return _find(name, folder, _BLOCK)


def find_server(name: str, folder: Path) -> type[Any]:
    """datatrove's server class, or one like them, that a recipe in `folder` means by `name`.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    from datatrove.pipeline.inference.servers import InferenceServer

    found = _find(name, folder, _Kind("server", InferenceServer, SERVERS, "datatrove's InferenceServer"))
    if isabstract(found):
        raise ValueError(f"{name} must define {' and '.join(sorted(found.__abstractmethods__))}")
    return found


def _find(name: str, folder: Path, kind: _Kind) -> type[Any]:
    if name in kind.known:
        module, class_name = kind.known[name].rsplit(".", 1)
        return _from_module(module, class_name, kind)
    mine = f"my_{kind.name}s.py:My{kind.name.title()}"
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(folder, path, class_name, kind)
    if name.endswith(".py"):
        raise ValueError(f"'{name}' names a file; name a class in it too: {name}:My{kind.name.title()}")
    module, dot, class_name = name.replace(":", ".").rpartition(".")
    if not dot:
        raise ValueError(f"there is no {kind.name} '{name}'; {nearest(name, kind.known, f'{kind.name}s')}")
    if not all(part.isidentifier() for part in (*module.split("."), class_name)):
        raise ValueError(f"'{name}' is no path to a class: write {mine} or package.module.My{kind.name.title()}")
    beside = f"{module.replace('.', '/')}.py"
    hint = f"write {beside}:{class_name}" if _is_file(folder / beside) else _INSTALL
    return _from_module(module, class_name, kind, hint)


_INSTALL = "install it, or mend the path"


def _from_module(module: str, class_name: str, kind: _Kind, hint: str = _INSTALL) -> type[Any]:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if module == missing or module.startswith(f"{missing}."):
            raise ValueError(f"there is no module '{missing}': {hint}") from error
        raise ValueError(f"{module} needs the package '{missing}': pip install {missing.split('.')[0]}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module} fails: {type(error).__name__}: {error}") from error
    return _class_in(vars(loaded), class_name, module, kind)


_loaded: dict[str, tuple[Path, int, Path]] = {}
"""our users' modules by name: the file that each came from, when it had last been changed, and the recipe's folder"""


def _from_file(folder: Path, name: str, class_name: str, kind: _Kind) -> type[Any]:
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
    found = _from_module(module, class_name, kind)
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


def _class_in(names: Mapping[str, Any], class_name: str, where: str, kind: _Kind) -> type[Any]:
    def fits(value: object) -> bool:
        return isinstance(value, type) and issubclass(value, kind.base)

    found = names.get(class_name)
    if found is None:
        fitting = [name for name, value in names.items() if fits(value)]
        own = [name for name in fitting if getattr(names[name], "__module__", None) == where]
        raise ValueError(f"{where} has no '{class_name}'; {nearest(class_name, own or fitting, f'{kind.name}s')}")
    if not fits(found):
        raise ValueError(f"{where}.{class_name} is not a {kind.name}: derive it from {kind.bases}")
    return found  # type: ignore[no-any-return]
