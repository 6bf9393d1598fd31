"""Recipes: YAML in, checked steps out. All that is wrong is reported at once, before a model is asked anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datatrove.pipeline.base import PipelineStep

from .blocks.base import Block, Generator
from .blocks.foreign import Foreign
from .client import ModelConfig
from .errors import RecipeError
from .options import fitted, misfits, nearest
from .resolve import find_block
from .sandbox import SandboxConfig
from .source import Source, Where, read

if TYPE_CHECKING:
    from .executors import RunOptions

_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_RESERVED = {"run", "dropped", "discarded", "logs", "cache"}


@dataclass(frozen=True)
class ExecutorConfig:
    """How a run is spread: `tasks` shards of the records, `workers` processes at a time."""

    type: Literal["local"] = "local"
    tasks: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.workers < 1:
            raise ValueError(f"tasks and workers must be at least 1, got {self.tasks} and {self.workers}")


@dataclass(frozen=True)
class BlockSpec:
    """A block as the recipe names it; `build` makes it."""

    cls: type[PipelineStep]
    options: dict[str, Any]
    title: str
    where: Where
    text_field: str = ""

    def build(self) -> Block:
        """A fresh block.

        Raises:
            Exception: whatever the constructor thinks of its options.
        """
        if issubclass(self.cls, Block):
            return self.cls(**fitted(self.cls, self.options))
        return Foreign(self.cls(**self.options), self.text_field)


@dataclass(frozen=True)
class Step:
    """One item of the recipe: a name, and a block or a few in a row."""

    name: str
    number: int
    blocks: tuple[BlockSpec, ...]

    @property
    def file(self) -> str:
        return f"{self.name}.jsonl"


@dataclass(frozen=True)
class Recipe:
    """A recipe that has passed every check that needs no model."""

    path: Path
    data: dict[str, Any]
    """as written, with environment variables and overrides put in; free of secrets"""
    name: str
    seed: int
    text: str
    output_dir: Path
    cache_dir: Path
    models: dict[str, ModelConfig]
    sandbox: SandboxConfig
    executor: ExecutorConfig
    steps: tuple[Step, ...]
    flush_interval: float = 5.0
    inputs: tuple[Path, ...] = field(default=())
    """the files that its blocks read"""

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Reads and checks a recipe.

        Args:
            path: the YAML file.
            overrides: `path.to.option=value`, as after `--set`.

        Raises:
            RecipeError: it is wrong; `problems` has a line number, a step, what, and what to do for each mistake.
        """
        source = read(path, overrides)
        loaded = _Check(source).recipe()
        if source.problems or loaded is None:
            raise RecipeError(sorted(set(source.problems)))
        return loaded

    def run(self, options: RunOptions | None = None) -> dict[str, Any]:
        """Runs the recipe and returns what `run.json` holds.

        Raises:
            RecipeError: something the run needs is missing, or the output directory holds another recipe's results.
            StopRun: the run cannot go on.
        """
        from .executors import run

        return run(self, options)

    def step_number(self, name: str | int) -> int:
        """The number, from 1, of the step of that name or number.

        Raises:
            RecipeError: there is no such step.
        """
        for step in self.steps:
            if str(name) in (step.name, str(step.number)):
                return step.number
        known = [step.name for step in self.steps]
        hint = nearest(str(name), known, "steps")
        raise RecipeError(f"{self.path}: there is no step '{name}' (steps are 1-{len(known)} or names); {hint}")


_TOP = ("name", "seed", "text", "output_dir", "cache_dir", "flush_interval", "models", "sandbox", "executor", "steps")
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a word"),
    "seed": (int, "a whole number"),
    "text": (str, "the name of a field"),
    "output_dir": (str, "a path"),
    "cache_dir": (str, "a path"),
    "flush_interval": ((int, float), "a number of seconds"),
}


class _Check:
    """Walks a recipe's data, noting problems in the source; what is right becomes a `Recipe`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.data = source.data
        self.inputs: list[Path] = []

    def recipe(self) -> Recipe | None:
        top = self._top()
        models = {
            str(name): model
            for name, config in self._mapping("models").items()
            if (model := self._part(ModelConfig, config, ("models", name), f"model '{name}'")) is not None
        }
        sandbox = self._part(SandboxConfig, self._mapping("sandbox"), ("sandbox",), "sandbox")
        executor = self._part(ExecutorConfig, self._mapping("executor"), ("executor",), "executor")
        steps = list(self._steps())
        self._flow(steps)
        if self.source.problems or sandbox is None or executor is None:
            return None
        output_dir = Path(top.get("output_dir", "output"))
        cache_dir = Path(top["cache_dir"]) if top.get("cache_dir") else output_dir / "cache"
        path = Path(self.source.file)
        return Recipe(
            path, self.data, top.get("name", path.stem), top.get("seed", 0), top.get("text", ""), output_dir, cache_dir,
            models, sandbox, executor, tuple(steps), float(top.get("flush_interval", 5.0)), tuple(self.inputs),
        )  # fmt: skip

    def _top(self) -> dict[str, Any]:
        for key in self.data:
            if key not in _TOP:
                self.source.add((key,), "", f"a recipe has no '{key}'; {nearest(key, _TOP, 'keys')}")
        for key, (kind, what) in _KINDS.items():
            value = self.data.get(key)
            if key in self.data and (not isinstance(value, kind) or isinstance(value, bool) or value == ""):
                self.source.add((key,), "", f"{key} must be {what}, got {value!r}")
        if "flush_interval" in self.data and not self.source.problems and self.data["flush_interval"] <= 0:
            self.source.add(("flush_interval",), "", f"must be above 0, got {self.data['flush_interval']}")
        return {key: self.data[key] for key in _KINDS if key in self.data}

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.data.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.source.add((key,), "", f"{key} must be a mapping of names to values, got {value!r}")
            return {}
        return value

    def _part(self, cls: type, config: Any, where: Where, title: str) -> Any:
        if not isinstance(config, dict):
            self.source.add(where, "", f"{title} must be a mapping of options, got {config!r}")
            return None
        wrong = list(misfits(cls, config, title))
        for option, message in wrong:
            self.source.add((*where, option) if option else where, "", _masked(option, message, config))
        if wrong:
            return None
        try:
            return cls(**fitted(cls, config))
        except ValueError as error:
            self.source.add(_pointing(error, config, where), "", f"{title}: {error}")
            return None

    def _steps(self) -> Iterator[Step]:
        listed = self.data.get("steps")
        if not isinstance(listed, list) or not listed:
            self.source.add(("steps",), "", "a recipe needs 'steps': a list of at least one block")
            return
        names: dict[str, int] = {}
        for index, item in enumerate(listed):
            where: Where = ("steps", index)
            if not isinstance(item, dict):
                self.source.add(where, "", f"step {index + 1} must be a mapping with 'name' and 'block', got {item!r}")
                continue
            name = self._step_name(item, index, names)
            blocks = list(self._blocks(item, name, where))
            yield Step(name, index + 1, tuple(blocks))

    def _step_name(self, item: dict[str, Any], index: int, names: dict[str, int]) -> str:
        name, where = item.get("name"), ("steps", index)
        if name is None:
            self.source.add(where, "", f"step {index + 1} needs a 'name': its output file is called so")
        elif not isinstance(name, str) or not _NAME.match(name) or name in _RESERVED:
            rule = f"use letters, digits, _ and -, and none of {', '.join(sorted(_RESERVED))}"
            self.source.add((*where, "name"), "", f"'{name}' cannot name a step and its file: {rule}")
        elif name.lower() in names:
            line = self.source.line(("steps", names[name.lower()]))
            self.source.add((*where, "name"), name, f"the step on line {line} has this name too: rename one")
        else:
            names[name.lower()] = index
            return name
        return str(name or index + 1)

    def _blocks(self, item: dict[str, Any], step: str, where: Where) -> Iterator[BlockSpec]:
        inner = {key: value for key, value in item.items() if key != "name"}
        if "blocks" not in inner:
            yield from self._block(inner, step, where)
            return
        for key in set(inner) - {"blocks"}:
            self.source.add((*where, key), step, f"'{key}' belongs to one of the blocks: move it under 'blocks'")
        listed = inner["blocks"]
        if not isinstance(listed, list) or not listed:
            self.source.add((*where, "blocks"), step, "blocks must be a list of at least one block")
            return
        for index, config in enumerate(listed):
            at = (*where, "blocks", index)
            if isinstance(config, dict):
                yield from self._block({k: v for k, v in config.items() if k != "name"}, step, at)
            else:
                self.source.add(at, step, f"a block is a mapping with 'block' and its options, got {config!r}")

    def _block(self, config: dict[str, Any], step: str, where: Where) -> Iterator[BlockSpec]:
        name = config.get("block")
        if not isinstance(name, str):
            self.source.add(where, step, "a step needs a 'block' (or a list of 'blocks'): `autoif blocks` lists them")
            return
        try:
            cls = find_block(name, self.source.folder)
        except ValueError as error:
            self.source.add((*where, "block"), step, str(error))
            return
        ours = issubclass(cls, Block)
        options = {key: value for key, value in config.items() if key != "block" and (ours or key != "text")}
        wrong = list(misfits(cls, options, cls.__name__, check_types=ours))
        for option, message in wrong:
            self.source.add((*where, option) if option else where, step, message)
        options = {key: self._file_option(cls, key, value, step, (*where, key)) for key, value in options.items()}
        text_field = str(config.get("text") or self.data.get("text") or "")
        if not ours and not text_field:
            self.source.add(
                where, step, f"{cls.__name__} is a datatrove block: say which field is its text, `text: response`"
            )
        elif not wrong:
            yield BlockSpec(cls, options, name, where, text_field)

    def _file_option(self, cls: type, key: str, value: Any, step: str, where: Where) -> Any:
        """Options that name files are relative to the recipe; a prompt may stand in a file of its own."""
        if not isinstance(value, str):
            return value
        path = (self.source.folder / value).resolve()
        if key in getattr(cls, "files", ()):
            if path.is_file():
                self.inputs.append(path)
            else:
                self.source.add(where, step, f"there is no file {path}: paths are relative to the recipe")
            return str(path)
        if value.endswith(".jinja") and "\n" not in value:
            try:
                self.inputs.append(path)
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                self.source.add(where, step, f"cannot read the template {path}: {error}")
        return value

    def _flow(self, steps: list[Step]) -> None:
        """Builds every block once, and checks that each reads what an earlier one writes."""
        built: list[tuple[Step, BlockSpec, Block | None]] = [
            (step, spec, self._build(step, spec)) for step in steps for spec in step.blocks
        ]
        complete = not self.source.problems
        fields: frozenset[str] | None = frozenset()  # None: anything may be there, after somebody else's reader
        for index, (step, spec, block) in enumerate(built):
            if block is None:
                fields = None
                continue
            if index == 0 and not (block.kind == "reader" or getattr(block, "is_reader", False)) and complete:
                advice = "begin with a reader: read_lines, read_jsonl or a datatrove reader"
                self.source.add(
                    spec.where, step.name, f"{spec.title} cannot come first, there are no records yet: {advice}"
                )
                return
            for name in sorted(set(block.reads) - fields) if fields is not None else []:
                self.source.add(spec.where, step.name, self._unwritten(spec.title, name, fields or frozenset(), built))
            if fields is not None:
                fields = None if getattr(block, "is_reader", False) else block.fields_after(fields | set(block.reads))

    def _unwritten(
        self, title: str, name: str, fields: frozenset[str], built: list[tuple[Step, BlockSpec, Block | None]]
    ) -> str:
        writers = list(dict.fromkeys(step.name for step, _, block in built if block and name in block.writes))
        if writers:
            hint = f"it is written by {', '.join(map(repr, writers))}: move that step before this one"
        else:
            hint = nearest(name, sorted(fields), "fields here")
        return f"{title} reads '{name}', which no earlier step writes; {hint}"

    def _build(self, step: Step, spec: BlockSpec) -> Block | None:
        try:
            block = spec.build()
        except Exception as error:  # a constructor may raise anything; all of it is the recipe's fault
            message = str(error) if isinstance(error, (ValueError, ImportError)) else f"{type(error).__name__}: {error}"
            self.source.add(_pointing(error, spec.options, spec.where), step.name, f"{spec.title}: {message}")
            return None
        if not hasattr(block, "stats"):
            self.source.add(spec.where, step.name, f"{spec.title}: its __init__ must begin with super().__init__()")
            return None
        models = self._mapping("models")
        if isinstance(block, Generator) and block.model not in models:
            message = (
                f"there is no model '{block.model}' under 'models'; {nearest(block.model, list(models), 'models')}"
            )
            self.source.add((*spec.where, "model"), step.name, message)
        if all(Path(str(spec.options.get(option))).is_file() for option in block.files if option in spec.options):
            for message in block.check():
                self.source.add(spec.where, step.name, f"{spec.title}: {message}")
        return block


def _pointing(error: Exception, options: dict[str, Any], where: Where) -> Where:
    """The option that an error message begins with, so that its line can be named; else the whole block."""
    match = re.match(r"\w+", str(error))
    return (*where, match[0]) if match and match[0] in options else where


def _masked(option: str, message: str, config: dict[str, Any]) -> str:
    return message.replace(repr(config[option]), "a value that is not shown") if option == "api_key" else message
