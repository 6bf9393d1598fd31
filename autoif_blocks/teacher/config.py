"""What the simulated teacher does to a client, as its command line takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal["error_500", "error_429", "hang", "disconnect", "fewer_choices"]


def _option(default: Any, help: str) -> Any:
    """A field of the configuration; the command line shows the same help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TeacherConfig:
    """What the server does to a client. All rates are probabilities from 0 to 1."""

    latency: float = _option(0.0, "mean seconds before an answer")
    latency_sigma: float = _option(0.5, "spread of the latency: sigma of its lognormal; 0 makes it constant")
    error_500_rate: float = _option(0.0, "requests that get a 500")
    error_429_rate: float = _option(0.0, "requests that get a 429")
    retry_after: float = _option(1.0, "seconds in the Retry-After header of a 429")
    hang_rate: float = _option(0.0, "requests that never get an answer")
    disconnect_rate: float = _option(0.0, "connections closed in the middle of the body")
    fewer_choices_rate: float = _option(0.0, "requests for several choices that get only the first half of them")
    malformed_rate: float = _option(0.05, "functions that do not parse; labels and scores do so a fifth as often")
    hostile_rate: float = _option(0.025, "functions that attack; hostile texts come a fifth as often")
    wrong_rate: float = _option(
        0.3, "functions that check something else; an instruction's own rate is up to twice that"
    )
    wrong_output_rate: float = _option(0.07, "test cases with the opposite of the right verdict")
    misread_rate: float = _option(
        0.0, "instructions that are misread: their functions share a mistake, cases follow it"
    )
    vacuous_rate: float = _option(0.0, "functions that accept nearly everything")
    max_n: int | None = _option(None, "a larger n gets a 400")
    ignore_n: bool = _option(False, "answer with one choice whatever n is, as some servers do")
    max_slots: int | None = _option(None, "requests answered at a time; the others wait")
    capacity: int | None = _option(None, "requests taken at a time, those that wait included; any more gets a 429")
    batch_latency: float = _option(0.0, "seconds before a batch is answered (POST /v1/batches)")
    batch_queue: int | None = _option(None, "requests that may wait in batches; a batch that brings more fails")
    api_key: str | None = field(default=None, repr=False, metadata={"help": "any other bearer token gets a 401"})
    models: tuple[str, ...] = _option(
        ("simulated-teacher", "simulated-judge"), "any other model gets a 404; with none named, every name is known"
    )
    seed: int = _option(0, "seed of faults and latencies; completions do not depend on it")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_rate") and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
            if name in ("max_n", "max_slots", "capacity", "batch_queue") and value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if name in ("latency", "latency_sigma", "retry_after", "batch_latency") and value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        total = sum(rate for _, rate in fault_rates(self))
        if total > 1:
            raise ValueError(f"the rates of the faults add up to {total:g}; they must not exceed 1")


def fault_rates(config: TeacherConfig) -> tuple[tuple[Fault, float], ...]:
    return (
        ("error_500", config.error_500_rate),
        ("error_429", config.error_429_rate),
        ("hang", config.hang_rate),
        ("disconnect", config.disconnect_rate),
        ("fewer_choices", config.fewer_choices_rate),
    )
