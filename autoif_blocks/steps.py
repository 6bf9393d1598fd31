"""The parts of a checked recipe: its steps, their blocks, and how a run is spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from datatrove.pipeline.base import PipelineStep

from .blocks.base import Block
from .blocks.foreign import Foreign
from .options import fitted
from .source import Where


@dataclass(frozen=True)
class ExecutorConfig:
    """How a run is spread: `tasks` shards of the records, `workers` processes at a time."""

    type: Literal["local"] = "local"
    tasks: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.workers < 1:
            raise ValueError(f"tasks and workers must be at least 1, got {self.tasks} and {self.workers}")

    @property
    def at_once(self) -> int:
        """Tasks that run side by side: what a model may be asked is shared out among them."""
        return min(self.tasks, self.workers)


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
