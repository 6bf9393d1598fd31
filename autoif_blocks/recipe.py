"""Recipes: YAML in, checked steps out. All that is wrong is reported at once, before a model is asked anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blocks.kinds import Generator
from .budget import Budget
from .cache import CacheConfig
from .errors import RecipeError
from .flow import Placed, check_flow
from .growth import Grower
from .models import ModelConfig
from .options import fitted, misfits, nearest, options_of, shown
from .overrides import override
from .resolve import find_server
from .sandbox import SandboxConfig
from .source import Source, Where, read
from .steps import ExecutorConfig, Step
from .storage import check_url, is_url, local_folder
from .wiring import Wiring, path_of, pointing

if TYPE_CHECKING:
    from .run import RunOptions


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
    """where the run works, and where its results are"""
    cache_dir: Path
    models: dict[str, ModelConfig]
    sandbox: SandboxConfig
    executor: ExecutorConfig
    steps: tuple[Step, ...]
    flush_interval: float = 5.0
    budget: Budget = field(default_factory=Budget)
    cache: CacheConfig = field(default_factory=CacheConfig)
    target: int | None = None
    """run until so many records have come to the end"""
    shards: int | None = None
    """the last step's records in so many files, `<step>/shard_00000.jsonl` and so on; None: in one"""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """the files that its blocks read or come from, by what the recipe calls them"""
    output_url: str = ""
    """what the output directory mirrors, if it stands for a remote one"""
    cache_url: str = ""
    """the same of the cache, if it has a place of its own"""
    work_dir: str | None = None
    """where the local folders of remote ones are; None: as the environment says"""
    send_interval: float = 60.0

    @property
    def place(self) -> str:
        """Where the results are, as a person calls it."""
        return self.output_url or str(self.output_dir)

    def apart(self, output_dir: Path, cache_dir: Path) -> Recipe:
        """The same recipe for a trial in folders of its own, of which nothing is sent anywhere."""
        return replace(self, output_dir=output_dir, cache_dir=cache_dir, output_url="", cache_url="", target=None)

    @property
    def cache_per_task(self) -> bool:
        """Whether each task writes completions to a file of its own."""
        return self.executor.type != "local" if self.cache.per_task is None else self.cache.per_task

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
    "cache", "target", "shards", "work_dir", "send_interval", "steps",
)  # fmt: skip
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a word"),
    "seed": (int, "a whole number"),
    "text": (str, "the name of a field"),
    "output_dir": (str, "a path"),
    "cache_dir": (str, "a path"),
    "work_dir": (str, "a path"),
    "flush_interval": ((int, float), "a number of seconds"),
    "send_interval": ((int, float), "a number of seconds"),
}


class _Check:
    """Walks a recipe's data, noting problems in the source; what is right becomes a `Recipe`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.data = source.data

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
        cache = self._part(CacheConfig, self._mapping("cache"), ("cache",), "cache")
        placed: list[Placed] = []
        steps: list[Step] = []
        work_dir = top.get("work_dir") if isinstance(top.get("work_dir"), str) else None
        wiring = Wiring(self.source, self._mapping("models"), work_dir)
        for number, (name, here) in enumerate(wiring.steps(), start=1):
            placed += here
            steps.append(Step(name, number, tuple(block.spec for block in here if block.spec is not None)))
        if cache is not None and isinstance(cache.keep, list):
            self._check_named(("cache", "keep"), cache.keep, steps)
        if executor is not None and executor.reshard_after:
            where = ("executor", "reshard_after")
            self._check_named(where, executor.reshard_after, steps)
            if steps and steps[-1].name in executor.reshard_after:
                message = f"executor: reshard_after names the last step, '{steps[-1].name}': nothing comes after it"
                self.source.add(where, "", message)
        self._check_counts(steps)
        self._check_servers(models)
        if executor is not None:
            self._check_shares(executor, models, placed)
        check_flow(self.source, placed)
        urls = {key: str(top[key]) for key in ("output_dir", "cache_dir") if is_url(str(top.get(key, "")))}
        self._check_urls(urls, work_dir, executor)
        if self.source.problems:
            return None
        places = {key: local_folder(url, work_dir) for key, url in urls.items()}
        output_dir = places.get("output_dir") or path_of(top.get("output_dir", "output"))
        cache_dir = places.get("cache_dir") or (
            path_of(top["cache_dir"]) if "cache_dir" in top else output_dir / "cache"
        )
        path = Path(self.source.file)
        return Recipe(
            path, self.data, top.get("name", path.stem), top.get("seed", 0), top.get("text", ""), output_dir, cache_dir,
            models, sandbox, executor, tuple(steps), budget=budget, cache=cache, target=self.data.get("target"),
            shards=self.data.get("shards"), inputs=wiring.inputs, work_dir=work_dir,
            output_url=urls.get("output_dir", "").rstrip("/"), cache_url=urls.get("cache_dir", "").rstrip("/"),
            **{name: float(top[name]) for name in ("flush_interval", "send_interval") if name in top},
        )  # fmt: skip

    def _check_named(self, where: tuple[str, str], named: Sequence[str], steps: Sequence[Step]) -> None:
        for name in named:
            if name not in (names := [step.name for step in steps]):
                message = f"{where[0]}: {where[1]} names a step '{name}', which is not there"
                self.source.add(where, "", f"{message}; {nearest(name, names, 'steps')}")

    def _check_urls(self, urls: Mapping[str, str], work_dir: str | None, executor: ExecutorConfig | None) -> None:
        for key, url in urls.items():
            try:
                check_url(url, written=True)
            except ValueError as error:
                self.source.add((key,), "", f"{key}: {error}")
            if executor is not None and executor.type != "local" and work_dir is None:
                hint = "add work_dir, a folder that all machines of the cluster share"
                self.source.add((key,), "", f"{key}: tasks of executor {executor.type} work beside one another: {hint}")

    def _check_shares(
        self, executor: ExecutorConfig, models: Mapping[str, ModelConfig | None], placed: list[Placed]
    ) -> None:
        for name in sorted({here.block.model for here in placed if isinstance(here.block, Generator)}):
            config = models.get(name)
            if config is None or executor.serves_each(config):
                continue
            if short := config.too_little_for(executor.tasks, executor.at_once):
                message = f"executor: model '{name}': {short}: lower tasks or workers, or raise it"
                self.source.add(("executor",), "", message)

    def _check_servers(self, models: Mapping[str, ModelConfig | None]) -> None:
        for name, config in models.items():
            try:
                if config is not None and config.serve:
                    find_server(config.serve, self.source.folder)
            except ValueError as error:
                self.source.add(("models", name, "serve"), "", f"model '{name}': {error}")

    def _check_counts(self, steps: Sequence[Step]) -> None:
        target, shards = self.data.get("target"), self.data.get("shards")
        if shards is not None and (not isinstance(shards, int) or isinstance(shards, bool) or shards < 1):
            self.source.add(("shards",), "", f"shards must be a number of files, at least 1, got {shown(shards)}")
        if target is None:
            return
        if not isinstance(target, int) or isinstance(target, bool) or target < 1:
            self.source.add(("target",), "", f"target must be a number of records, at least 1, got {shown(target)}")
        elif Grower.of(steps) is None:
            hint = 'self_instruct can; a block of your own names by grows = "…" the option to raise'
            self.source.add(("target",), "", f"target: no block of this recipe can bring more records: {hint}")

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
        for key in ("flush_interval", "send_interval"):
            interval = self.data.get(key)
            if isinstance(interval, (int, float)) and interval <= 0:
                self.source.add((key,), "", f"{key} must be above 0, got {interval}")
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
            self.source.add(pointing(error, config, where), "", f"{title}: {error}")
            return None
