"""The parts of a checked recipe: its steps, their blocks, and how a run is spread."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from datatrove.pipeline.base import PipelineStep

from .blocks.base import Block
from .blocks.foreign import Foreign
from .models import ModelConfig
from .options import fitted
from .source import Where

# Which types an option has a meaning for; for all, if it is not here.
_TYPES = {
    **dict.fromkeys(("cpus_per_task", "mem_per_cpu_gb", "gpus_per_task"), ("ray", "slurm")), "address": ("ray",),
    **dict.fromkeys(("partition", "time", "qos", "sbatch_args", "env_command", "max_array_size"), ("slurm",)),
}  # fmt: skip


@dataclass(frozen=True)
class ExecutorConfig:
    """How a run is spread: `tasks` shards of the records, `workers` of them at a time."""

    type: Literal["local", "ray", "slurm"] = "local"
    """`local`: processes of this machine; `ray` and `slurm`: a cluster whose machines share the output directory"""
    tasks: int = 1
    workers: int = 1
    reshard_after: list[str] | None = None
    """steps after which the records are dealt out anew among the tasks: those that make many records of few, which else
    a few tasks would have to themselves"""
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    gpus_per_task: int = 0
    """for a model server that each task starts, see `serve` of a model"""
    address: str | None = None
    """Ray's, of a running cluster; None: RAY_ADDRESS, the cluster of this machine, or one that lasts for the run"""
    partition: str | None = None
    time: str | None = None
    """a task's limit as sbatch takes it: "20:00:00", or "90" minutes"""
    qos: str | None = None
    sbatch_args: dict[str, str | int | None] | None = None
    """more options for sbatch: {account: …, exclusive: null}"""
    env_command: str | None = None
    """a line of shell at the head of each job, to load modules for example"""
    max_array_size: int = 1001
    """the most tasks that the cluster takes as one array; more become several, one after another"""

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.workers < 1:
            raise ValueError(f"tasks and workers must be at least 1, got {self.tasks} and {self.workers}")
        for name in ("cpus_per_task", "mem_per_cpu_gb", "max_array_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.gpus_per_task < 0:
            raise ValueError(f"gpus_per_task must be at least 0, got {self.gpus_per_task}")
        for option in fields(self):
            types = _TYPES.get(option.name, ("local", "ray", "slurm"))
            if self.type not in types and getattr(self, option.name) != option.default:
                raise ValueError(f"{option.name} is an option of type {' and '.join(types)}, not of {self.type}")
        if self.type == "slurm" and not (self.partition and self.time):
            raise ValueError('type slurm needs a partition and a time, like "20:00:00"')

    @property
    def at_once(self) -> int:
        """Tasks that run side by side."""
        return min(self.tasks, self.workers)

    def serves_each(self, model: ModelConfig) -> bool:
        """Whether each task has a server of that model to itself, with no share to be taken."""
        return bool(model.serve) and self.type != "local"

    def share(self, model: ModelConfig, tasks: int) -> ModelConfig:
        """What each of a stage's tasks may ask of the model, or of its own server."""
        return model if self.serves_each(model) else model.share(tasks, min(tasks, self.workers))


@dataclass(frozen=True)
class BlockSpec:
    """A block as the recipe names it; `build` makes it."""

    cls: type[PipelineStep]
    options: dict[str, Any]
    title: str
    where: Where
    text_field: str = ""
    file: Path | None = None
    """the user's own, beside the recipe, that the class came from"""

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
