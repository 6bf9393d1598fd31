"""What a recipe says about a model: where it is served, how hard it may be asked, how patient to be with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal
from urllib.parse import urlsplit

SIMULATED = "simulated"
_BATCHES_AT_ONCE = 4
_SERVING = ("tp", "dp", "pp", "context", "serve_options", "start_timeout")
_ENV_REFERENCE = re.compile(r"\A\$\{(\w+)(:-)?\}\Z")


@dataclass(frozen=True)
class ModelConfig:
    """A model that steps can name: where it is served, and how hard it may be asked."""

    base_url: str | list[str] = ""
    """up to and including /v1; `simulated` is the built-in teacher. Several servers of the same model, as a list or
    with commas between them, share the work; one that fails is passed over until it answers again"""
    model: str = ""
    """the name that the servers know it by; with `serve` what is to be served, a path or a name on the Hub"""
    serve: str = ""
    """instead of base_url: `vllm`, `sglang`, or a server class of your own, derived from datatrove's, by file.py:Class
    or dotted path. The run starts it when the first request needs it, starts it again if it ends (at most 3 times an
    hour), and ends it; models that say the same of it share one. With the executor `local` there is one for the run,
    with `ray` and `slurm` one for each task: give each task a machine, or its part of one by `gpus_per_task`"""
    tp: int = 1
    """with `serve`: GPUs that hold the model together (tensor parallel)"""
    dp: int = 1
    """with `serve`: copies of the model (data parallel)"""
    pp: int = 1
    """with `serve`: stages that the model's layers are cut into (pipeline parallel)"""
    context: int = 8192
    """with `serve`: the most tokens of a prompt and its answer"""
    serve_options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """with `serve`: more options of the server's command line: {gpu-memory-utilization: 0.95, quantization: fp8}"""
    start_timeout: float = 1800.0
    """with `serve`: seconds from its start until it must answer"""
    api_key: str = "${AUTOIF_API_KEY:-}"
    """a reference to an environment variable, `${NAME}`; the key itself never stands in a recipe"""
    max_concurrency: int = 64
    """requests in flight, over all its servers and all tasks of the run; for each task where each has its own server"""
    mode: Literal["live", "batch"] = "live"
    """`batch`: requests go by OpenAI's Batch API, many in one file, whose answers come within a day and cost half (say
    so in `price`). What was sent is not paid again by the next command if the run stops or is killed meanwhile"""
    batch_requests: int = 10_000
    """with `mode: batch`: the most requests in one batch; of a task, four batches are on their way at most"""
    batch_wait: float = 30.0
    """with `mode: batch`: a batch goes out when no request has come for so many seconds"""
    batch_poll: float = 30.0
    """with `mode: batch`: seconds between two looks at how far it is"""
    adaptive: bool = True
    """whether to ask less of a server that refuses a fifth of the requests or more (429, 503, time-outs), and more
    again, up to max_concurrency, once it keeps up"""
    rpm: int | None = None
    """the most requests in any 60 seconds; of several tasks, each has an equal part"""
    tpm: int | None = None
    """the most tokens in any 60 seconds, prompts and completions; what a request will take is estimated before it is
    sent and corrected after"""
    max_n: int | None = None
    """the most choices to ask for in one request; None: as many as a step wants"""
    send_seed: bool = True
    """whether requests carry a `seed`: distinct for each sample, so that samples of one prompt differ"""
    timeout: float = 600.0
    """seconds one request may take in total"""
    first_byte_timeout: float | None = None
    """seconds until an answer begins, after which a request is asked again; None: only `timeout` counts. Most servers
    send nothing before an answer is complete, so it must be longer than the longest answer takes"""
    read_timeout: float | None = None
    """seconds without a byte in the middle of an answer, after which a request is asked again; None: only `timeout`
    counts"""
    connect_timeout: float = 10.0
    """seconds until a connection stands"""
    hedge: float | None = None
    """ask a second time, on another server if there is one, when a request takes so many times as long as 95% of its
    step's requests did; the first answer counts. At most one request in twenty is asked twice. None: never"""
    connect_patience: float = 5.0
    """seconds to wait for a server that has never answered"""
    max_retries: int = 10
    """further attempts at a request that fails in a way that may pass"""
    max_retry_wait: float = 60.0
    """the longest pause between two attempts, in seconds"""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """sent with every request: temperature, top_p, max_tokens, …; a step's own options win"""
    price: Mapping[str, float] = field(default_factory=dict)
    """cost of a million tokens: {input: …, output: …}"""

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model must be the name that the servers know it by")
        self._check_serve()
        self._check_batch()
        for address in self.base_urls:
            _check_address(address, alone=len(self.base_urls) == 1)
        if self.api_key and not _ENV_REFERENCE.match(self.api_key):
            raise ValueError(
                "api_key must name an environment variable, like ${OPENAI_API_KEY}: a key in a recipe leaks"
            )
        above_0 = (
            "max_concurrency",
            "batch_requests",
            "batch_poll",
            "timeout",
            "connect_timeout",
            "first_byte_timeout",
            "read_timeout",
            *_SERVING,
        )
        for name in (*above_0, "max_retry_wait", "rpm", "tpm"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if self.max_n is not None and self.max_n < 1:
            raise ValueError(f"max_n must be at least 1, got {self.max_n}")
        if self.hedge is not None and self.hedge < 1:
            raise ValueError(f"hedge must be at least 1 (times the usual latency), got {self.hedge}")
        if unknown := set(self.price) - {"input", "output"}:
            raise ValueError(f"price has 'input' and 'output', not '{min(unknown)}'")

    def _check_serve(self) -> None:
        if not self.serve and not self.base_urls:
            raise ValueError(
                "base_url must name a server, like http://HOST:8000/v1 (or 'simulated'); or serve: vllm starts one"
            )
        if self.serve and self.base_url:
            raise ValueError("serve starts a server, whose address the run knows: leave base_url out, or serve")
        for option in fields(self) if not self.serve else ():
            unset = option.default if option.default is not MISSING else {}
            if option.name in _SERVING and getattr(self, option.name) != unset:
                raise ValueError(f"{option.name} is for a server that the run starts: add serve, or leave it out")

    def _check_batch(self) -> None:
        if self.mode == "batch":
            if len(self.base_urls) != 1:
                raise ValueError("mode: batch needs one base_url: a batch belongs to the server that took it")
            for name in ("rpm", "tpm", "hedge", "first_byte_timeout"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for single requests: leave it out, or mode: batch")
        for option in fields(self):
            given = option.name.startswith("batch_") and getattr(self, option.name) != option.default
            if given and self.mode != "batch":
                raise ValueError(f"{option.name} is for mode: batch: add that, or leave it out")

    @property
    def slots(self) -> int:
        """The most requests on their way at once."""
        return _BATCHES_AT_ONCE * self.batch_requests if self.mode == "batch" else self.max_concurrency

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses of its servers, each once."""
        listed = self.base_url.split(",") if isinstance(self.base_url, str) else self.base_url
        return tuple(dict.fromkeys(url.strip().rstrip("/") for url in listed if url.strip()))

    def share(self, tasks: int, at_once: int) -> ModelConfig:
        """What each of `tasks` tasks may ask, of which `at_once` run side by side: together no more than the whole,
        where that suffices for all."""
        parts: dict[str, Any] = {
            name: max(1, whole // among) for name, whole, among in self._shared_out(tasks, at_once)
        }
        return replace(self, **parts)

    def too_little_for(self, tasks: int, at_once: int) -> str:
        """Which limit leaves nothing for one of the tasks; nothing if all do."""
        for name, whole, among in self._shared_out(tasks, at_once):
            if whole < among:
                return f"{name} is {whole}, and {among} tasks{' at once' if among < tasks else ''} need at least 1 each"
        return ""

    def _shared_out(self, tasks: int, at_once: int) -> list[tuple[str, int, int]]:
        # A task does not know what another, which has ended, has asked within the last minute.
        if self.mode == "batch":  # of which each task has its own
            return []
        named = [("max_concurrency", self.max_concurrency, at_once), ("rpm", self.rpm, tasks), ("tpm", self.tpm, tasks)]
        return [(name, whole, among) for name, whole, among in named if whole is not None]

    @property
    def key_name(self) -> str | None:
        """The environment variable that may hold its key."""
        match = _ENV_REFERENCE.match(self.api_key)
        return match[1] if match else None

    def missing_key(self) -> str | None:
        """The name of the environment variable that should hold the key and does not; None if all is well."""
        match = _ENV_REFERENCE.match(self.api_key)
        return match[1] if match and not match[2] and match[1] not in os.environ else None

    def secret(self) -> str:
        """The key, read from the environment now. Never store or print it."""
        return os.environ.get(self.key_name, "").strip() if self.key_name else ""


def _check_address(address: str, alone: bool) -> None:
    if address == SIMULATED:
        if not alone:
            raise ValueError("base_url 'simulated' is a server of its own: it cannot stand beside others")
        return
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname or not address.isprintable() or " " in address:
        raise ValueError(f"base_url must be like http://HOST:8000/v1 (or 'simulated'), got '{address}'")
    if url.username is not None or url.query:  # not shown: it may be a password
        raise ValueError("base_url must not hold a user, a password or a query: the key goes into api_key")
