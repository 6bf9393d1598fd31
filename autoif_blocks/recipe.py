"""Recipes: YAML in, checked steps out. All that is wrong is reported at once, before a model is asked anything."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blocks.base import Block, Generator
from .budget import Budget
from .errors import RecipeError
from .flow import Placed, check_flow
from .models import ModelConfig
from .options import fitted, misfits, nearest, options_of, shown
from .overrides import override
from .resolve import find_block
from .sandbox import SandboxConfig
from .source import Source, Where, read
from .steps import BlockSpec, ExecutorConfig, Step

if TYPE_CHECKING:
    from .run import RunOptions

# A step's name is a file's name and a word of the command line, where digits alone are a step's number.
_NAME = re.compile(r"\A(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z")
_RESERVED = {"run", "stage", "dropped", "discarded", "logs", "cache"}


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
    budget: Budget = field(default_factory=Budget)
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
        source = read(path)
        for assignment in overrides:
            override(source, assignment)
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
        from .run import run

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


_TOP = (
    "name", "seed", "text", "output_dir", "cache_dir", "flush_interval", "models", "sandbox", "executor", "budget",
    "steps",
)  # fmt: skip
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
            name: self._part(ModelConfig, config, ("models", name), f"model '{name}'")
            for name, config in self._mapping("models").items()
        }
        sandbox = self._part(SandboxConfig, self._mapping("sandbox"), ("sandbox",), "sandbox")
        executor = self._part(ExecutorConfig, self._mapping("executor"), ("executor",), "executor")
        budget = self._part(Budget, self._mapping("budget"), ("budget",), "budget")
        if (
            budget is not None
            and budget.cost is not None
            and not any(m is not None and m.price for m in models.values())
        ):
            hint = "give a model a price, {input: …, output: …} for a million tokens"
            self.source.add(("budget", "cost"), "", f"budget: cost can only be counted where a model has one: {hint}")
        placed: list[Placed] = []
        steps: list[Step] = []
        for number, (name, blocks) in enumerate(self._steps(), start=1):
            here = [self._built(block) for block in blocks]
            placed += here
            steps.append(Step(name, number, tuple(block.spec for block in here if block.spec is not None)))
        check_flow(self.source, placed)
        if self.source.problems:
            return None
        output_dir = _path(top.get("output_dir", "output"))
        cache_dir = _path(top["cache_dir"]) if "cache_dir" in top else output_dir / "cache"
        path = Path(self.source.file)
        return Recipe(
            path, self.data, top.get("name", path.stem), top.get("seed", 0), top.get("text", ""), output_dir, cache_dir,
            models, sandbox, executor, tuple(steps), float(top.get("flush_interval", 5.0)), budget,
            tuple(self.inputs),
        )  # fmt: skip

    def _top(self) -> dict[str, Any]:
        for key in self.data:
            if key not in _TOP:
                self.source.add((key,), "", f"a recipe has no '{key}'; {nearest(key, _TOP, 'keys')}")
        for key, (kind, what) in _KINDS.items():
            if key not in self.data:
                continue
            value = self.data[key]
            if not isinstance(value, kind) or isinstance(value, bool) or value == "":
                quote = ": put it in quotes" if kind is str and isinstance(value, (int, float)) else ""
                self.source.add((key,), "", f"{key} must be {what}, got {shown(value)}{quote}")
        interval = self.data.get("flush_interval")
        if isinstance(interval, (int, float)) and interval <= 0:
            self.source.add(("flush_interval",), "", f"flush_interval must be above 0, got {interval}")
        return {key: self.data[key] for key in _KINDS if key in self.data}

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            self.source.add((key,), "", f"{key} must be a mapping of names to values, got {shown(value)}")
        return value if isinstance(value, dict) else {}

    def _part(self, cls: type, config: Any, where: Where, title: str) -> Any:
        if not isinstance(config, dict):
            self.source.add(where, "", f"{title} must be a mapping of options: {', '.join(options_of(cls))}")
            return None
        wrong = list(misfits(cls, config, title))
        for option, message in wrong:
            if option == "api_key":  # whatever it is: never show it
                message = "api_key must name an environment variable, like ${OPENAI_API_KEY}"
            prefix = "" if message.startswith(title) else f"{title}: "
            self.source.add((*where, option) if option else where, "", prefix + message)
        if wrong:
            return None
        try:
            return cls(**fitted(cls, config))
        except ValueError as error:
            self.source.add(_pointing(error, config, where), "", f"{title}: {error}")
            return None

    def _steps(self) -> Iterator[tuple[str, list[Placed]]]:
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
            yield name, list(self._blocks(item, name, where))

    def _step_name(self, item: dict[str, Any], index: int, names: dict[str, int]) -> str:
        name, where = item.get("name"), ("steps", index)
        if name is None:
            self.source.add(where, "", f"step {index + 1} needs a 'name': its output file is called so")
        elif not isinstance(name, str) or name.isdigit():
            message = f"step {index + 1} needs a name with a letter in it, got {shown(name)}"
            self.source.add((*where, "name"), "", message)
        elif not _NAME.match(name) or name.lower() in _RESERVED:
            rule = f"use up to 100 letters, digits, _ and -, and none of {', '.join(sorted(_RESERVED))}"
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
        return Placed(step, where, title, BlockSpec(cls, options, title, where, "" if ours else text_field))

    def _file_option(self, cls: type, key: str, value: Any, step: str, where: Where) -> Any:
        """Options that name files are relative to the recipe; a prompt may stand in a file of its own."""
        named = key in getattr(cls, "files", ())
        if not isinstance(value, str) or not (named or (value.endswith(".jinja") and "\n" not in value)):
            return value
        path = self.source.folder / _path(value)
        try:
            path = path.resolve()
            if not path.is_file():
                raise FileNotFoundError
            self.inputs.append(path)
            return str(path) if named else path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            self.source.add(where, step, f"there is no file {path}: paths are relative to the recipe")
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            self.source.add(where, step, f"cannot read {shown(value)}: {getattr(error, 'strerror', None) or error}")
        return _UNREADABLE if not named else str(path)

    def _known_model(self, model: str, step: str, where: Where) -> None:
        models = self._mapping("models")
        if model not in models:
            message = f"there is no model '{model}' under 'models'; {nearest(model, models, 'models')}"
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
            self.source.add(_pointing(error, spec.options, where), step, f"{spec.title}: {message}")
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
            copy.deepcopy(block)
        except Exception as error:
            message = f"{spec.title} cannot be sent to a worker ({error}): open such things in run(), not in __init__"
            self.source.add(where, step, message)
        if isinstance(block, Generator):
            self._known_model(block.model, step, where)
        if all(Path(str(spec.options.get(option))) in self.inputs for option in block.files if option in spec.options):
            try:
                for message in block.check():
                    self.source.add(where, step, f"{spec.title}: {message}")
            except Exception as error:
                self.source.add(where, step, f"{spec.title}: its check() fails: {type(error).__name__}: {error}")
        return Placed(step, where, placed.title, spec, block)


_UNREADABLE = "(a file that cannot be read)"


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def _pointing(error: BaseException, options: Mapping[str, Any], where: Where) -> Where:
    """The option that an error message names first, or whose value it quotes; else the whole block."""
    said = str(error)
    named = [word for word in re.findall(r"\w+", said) if word in options]
    quoted = [option for option, value in options.items() if said.endswith((f" {value!r}", f" '{value}'"))]
    return next(((*where, option) for option in named + quoted), where)
