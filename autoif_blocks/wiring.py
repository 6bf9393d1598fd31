"""The steps of a recipe: what its items say, made into blocks in their places."""

from __future__ import annotations

import copy
import glob
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .blocks.base import Block
from .blocks.kinds import Generator
from .flow import Placed
from .growth import Grower
from .options import misfits, nearest, shown
from .resolve import find_block, loaded_from
from .source import Source, Where
from .steps import BlockSpec, Step
from .storage import fetch, is_url

# A step's name is a file's name and a word of the command line, where digits alone are a step's number.
_NAME = re.compile(r"\A(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z")
RESERVED = {"run", "stage", "dropped", "discarded", "logs", "cache"}
_UNREADABLE = "(a file that cannot be read)"


class Wiring:
    """Reads the list of steps."""

    def __init__(self, source: Source, models: Collection[str], work_dir: str | None = None) -> None:
        self.source = source
        self.data = source.data
        self.models = models
        self.work_dir = work_dir
        self.inputs: dict[str, Path] = {}
        """the files that options and blocks name, by what they say"""

    def steps(self) -> Iterator[tuple[str, list[Placed]]]:
        """The name of each step, and its blocks as far as they can be made."""
        listed = self.data.get("steps")
        if not isinstance(listed, list) or not listed:
            got = "an empty list" if listed == [] else shown(listed)
            self.source.add(("steps",), "", f"a recipe needs 'steps', a list of at least one step, got {got}")
            return
        names: dict[str, int] = {}
        for index, item in enumerate(listed):
            where: Where = ("steps", index)
            if not isinstance(item, dict):
                message = f"step {index + 1} must be a mapping with 'name' and 'block', got {shown(item)}"
                self.source.add(where, "", message)
                yield str(index + 1), [Placed("", where, "")]
                continue
            name = self._step_name(item, index, names)
            yield name, [self._built(block) for block in self._blocks(item, name, where)]

    def _step_name(self, item: dict[str, Any], index: int, names: dict[str, int]) -> str:
        name, where = item.get("name"), ("steps", index)
        if name is None:
            self.source.add(where, "", f"step {index + 1} needs a 'name': its output file is called so")
        elif not isinstance(name, str) or name.isdigit():
            message = f"step {index + 1} needs a name with a letter in it, got {shown(name)}"
            self.source.add((*where, "name"), "", message)
        elif not _NAME.match(name) or name.lower() in RESERVED:
            rule = f"use up to 100 letters, digits, _ and -, and none of {', '.join(sorted(RESERVED))}"
            self.source.add((*where, "name"), "", f"{shown(name)} cannot name a step and its file: {rule}")
        elif name.lower() in names:
            line = self.source.line(("steps", names[name.lower()]))
            self.source.add((*where, "name"), name, f"the step on line {line} has this name too: rename one")
        else:
            names[name.lower()] = index
            return name
        return name if isinstance(name, str) and _NAME.match(name) else str(index + 1)

    def _blocks(self, item: dict[str, Any], step: str, where: Where) -> Iterator[Placed]:
        inner = {key: value for key, value in item.items() if key != "name"}
        if "blocks" not in inner:
            yield self._block(inner, step, where)
            return
        for key in set(inner) - {"blocks"}:
            self.source.add((*where, key), step, f"'{key}' belongs to one of the blocks: move it under 'blocks'")
        listed = inner["blocks"]
        if not isinstance(listed, list) or not listed:
            got = "an empty list" if listed == [] else shown(listed)
            self.source.add((*where, "blocks"), step, f"'blocks' must be a list of at least one block, got {got}")
            yield Placed(step, where, "")
            return
        for index, config in enumerate(listed):
            at = (*where, "blocks", index)
            if isinstance(config, dict):
                yield self._block({k: v for k, v in config.items() if k != "name"}, step, at)
            else:
                message = f"a block must be a mapping with 'block' and its options, got {shown(config)}"
                self.source.add(at, step, message)
                yield Placed(step, at, "")

    def _block(self, config: dict[str, Any], step: str, where: Where) -> Placed:
        name = config.get("block")
        if not isinstance(name, str):
            typo = next((key for key in config if nearest(key, ["block", "blocks"], "keys").startswith("did")), None)
            hint = f"is '{typo}' meant to be it?" if typo and typo != "block" else "`autoif blocks` lists them"
            self.source.add(where, step, f"a step needs a 'block' (or a list of 'blocks'): {hint}")
            return Placed(step, where, "")
        title = re.split("[.:]", name)[-1]
        try:
            cls = find_block(name, self.source.folder)
        except ValueError as error:
            self.source.add((*where, "block"), step, str(error))
            return Placed(step, where, title)
        ours = issubclass(cls, Block)
        options = {key: value for key, value in config.items() if key != "block" and (ours or key != "text")}
        wrong = list(misfits(cls, options, title, check_types=ours))
        for option, message in wrong:
            self.source.add((*where, option) if option else where, step, message)
        options = {key: self._file_option(cls, key, value, step, (*where, key)) for key, value in options.items()}
        text_field = config.get("text") or self.data.get("text") or ""
        if not ours and not (text_field and isinstance(text_field, str)):
            self.source.add(
                where, step, f"{title} is a datatrove block: say which field is its text, like `text: response`"
            )
            return Placed(step, where, title)
        if wrong:
            if issubclass(cls, Generator) and isinstance(options.get("model"), str):
                self._known_model(options["model"], step, where)
            return Placed(step, where, title)
        file = loaded_from(cls)
        if file is not None:
            self.inputs[name] = file
        return Placed(step, where, title, BlockSpec(cls, options, title, where, "" if ours else text_field, file))

    def _file_option(self, cls: type, key: str, value: Any, step: str, where: Where) -> Any:
        """Options that name files are relative to the recipe, or URLs; a prompt may stand in a file of its own. A list
        may hold patterns, `evals/*.jsonl`."""
        named = key in getattr(cls, "files", ())
        if named and isinstance(value, list):
            texts = [item for item in value if isinstance(item, str)]
            names = [name for item in texts for name in self._matching(item, step, where)]
            return [str(self._file(name, True, step, where)) for name in dict.fromkeys(names)]
        if not isinstance(value, str) or not (named or (value.endswith(".jinja") and "\n" not in value)):
            return value
        return self._file(value, named, step, where)

    def _matching(self, pattern: str, step: str, where: Where) -> list[str]:
        """The names that a pattern stands for, as a recipe could write them; a name stands for itself."""
        if is_url(pattern) or not glob.has_magic(pattern):
            return [pattern]
        # pathlib's glob does not go up, `../evals/*.jsonl`.
        found = sorted(glob.glob(str(path_of(pattern)), root_dir=self.source.folder, recursive=True))  # noqa: PTH207
        files = [name for name in found if (self.source.folder / name).is_file()]
        if not files:
            self.source.add(where, step, f"no file matches {shown(pattern)}: paths are relative to the recipe")
        return files

    def _file(self, value: str, named: bool, step: str, where: Where) -> str:
        """The path of a file that an option names, or what it holds if the option is a text."""
        path = self.source.folder / path_of(value)
        try:
            path = fetch(value, self.work_dir) if is_url(value) else path.resolve()
            if not path.is_file():
                raise FileNotFoundError
            self.inputs[value] = path
            return str(path) if named else path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            self.source.add(where, step, f"there is no file {path}: paths are relative to the recipe")
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            self.source.add(where, step, f"cannot read {shown(value)}: {getattr(error, 'strerror', None) or error}")
        except ValueError as error:  # of a URL, which it names unless that holds a secret
            self.source.add(where, step, f"{where[-1]}: {error}")
        return _UNREADABLE if not named else str(path)

    def _known_model(self, model: str, step: str, where: Where) -> None:
        if model not in self.models:
            message = f"there is no model '{model}' under 'models'; {nearest(model, self.models, 'models')}"
            self.source.add((*where, "model"), step, message)

    def _built(self, placed: Placed) -> Placed:
        """The block made once, to hear what its constructor says, and its files looked into."""
        spec, step, where = placed.spec, placed.step, placed.where
        if spec is None:
            return placed
        try:
            block = spec.build()
        except (Exception, SystemExit) as error:  # a constructor may raise anything; all of it is the recipe's fault
            message = str(error) if isinstance(error, (ValueError, ImportError)) else f"{type(error).__name__}: {error}"
            self.source.add(pointing(error, spec.options, where), step, f"{spec.title}: {message}")
            return placed
        if not hasattr(block, "stats"):
            self.source.add(where, step, f"{spec.title}: its __init__ must begin with super().__init__()")
            return placed
        for attribute in ("reads", "writes"):
            fields = getattr(block, attribute)
            if isinstance(fields, str) or not all(isinstance(field, str) for field in fields):
                message = f"{spec.title}: {attribute} must be a tuple of names, like ('query',), got {fields!r}"
                self.source.add(where, step, message)
                return placed
        try:
            Grower.of([Step(step, 0, (spec,))])
        except ValueError as error:
            self.source.add(where, step, str(error))
        try:
            copy.deepcopy(block)
        except Exception as error:
            message = f"{spec.title} cannot be sent to a worker ({error}): open such things in run(), not in __init__"
            self.source.add(where, step, message)
        if isinstance(block, Generator):
            self._known_model(block.model, step, where)
        known = {str(path): name for name, path in self.inputs.items()}
        given = [spec.options[option] for option in block.files if option in spec.options]
        if all(path in known for value in given for path in (value if isinstance(value, list) else [str(value)])):
            try:
                for message in block.check():
                    for path, name in known.items():
                        message = message.replace(path, name) if is_url(name) else message
                    self.source.add(where, step, f"{spec.title}: {message}")
            except Exception as error:
                self.source.add(where, step, f"{spec.title}: its check() fails: {type(error).__name__}: {error}")
        return Placed(step, where, placed.title, spec, block)


def path_of(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def pointing(error: BaseException, options: Mapping[str, Any], where: Where) -> Where:
    """The option that an error message names first, or whose value it quotes; else the whole block."""
    said = str(error)
    named = [word for word in re.findall(r"\w+", said) if word in options]
    quoted = [option for option, value in options.items() if said.endswith((f" {value!r}", f" '{value}'"))]
    return next(((*where, option) for option in named + quoted), where)
