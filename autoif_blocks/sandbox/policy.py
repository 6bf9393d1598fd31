"""What a verification function may use, what its calls can end in, and how the parts of the sandbox talk.

Imported on both sides of the boundary, so it needs nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Outcome(IntEnum):
    """What one call of `evaluate(response)` ended in: one byte, the only thing that ever leaves the child."""

    TRUE = 1
    FALSE = 2
    NONE = 3
    """It returned None: most often a branch that was forgotten."""
    TRUTHY = 4
    """Neither a bool nor None, and true in a condition (a match object, a non-empty list, `numpy.True_`)."""
    FALSY = 5
    """Neither a bool nor None, and false in a condition (0, an empty list)."""
    EXCEPTION = 6
    TIMEOUT = 7
    MEMORY = 8
    CRASH = 9
    """The process died of a signal, or the worker under it did, twice."""
    EXIT = 10
    """`sys.exit()`, `os._exit()` or the like."""
    LOAD_ERROR = 11
    """There is no `evaluate` to call: a syntax error, an exception or a timeout while the code was loaded."""

    @property
    def verdict(self) -> bool | None:
        """True or False if the function gave a usable answer, else None."""
        return _VERDICTS.get(self)


_VERDICTS = {Outcome.TRUE: True, Outcome.TRUTHY: True, Outcome.FALSE: False, Outcome.FALSY: False}

ISOLATIONS = ("auto", "full", "process")

LIGHT = """
    __future__ _strptime abc ast bisect collections.abc contextlib copy csv dataclasses datetime decimal difflib enum
    fractions functools hashlib heapq html html.parser io itertools json keyword math numbers operator os random re
    statistics string sys textwrap time traceback types typing unicodedata urllib.parse
"""
HEAVY = ("nltk", "langdetect", "numpy")


@dataclass(frozen=True)
class SandboxConfig:
    """The `sandbox:` section of a recipe."""

    workers: int = 0
    """Processes that run functions at the same time; 0: one for each core."""

    call_timeout: float = 1.0
    """Seconds of processor time that one call may take. A call that waits instead (`time.sleep`, a lock) is given up
    after twice as many seconds of waiting; being slow because the machine is busy counts as neither."""

    function_timeout: float = 10.0
    """Seconds of processor time for all calls of one function together, loading included, and a quarter of the seconds
    by the clock; what has not run by then is a TIMEOUT."""

    memory_mb: int = 512
    """Address space that one function may add to what the interpreter itself uses."""

    preload: tuple[str, ...] = ("light",)
    """What is imported before any function arrives: `light` (the usual standard library, always there), `heavy` (nltk,
    langdetect, numpy: those that are installed), or names of modules. Modules beyond `light` go to workers of their
    own, which run only the functions that import them. A package with C extensions works only if it is named here."""

    isolation: str = "auto"
    """`auto`: every layer that containment rests on, or SandboxUnavailable. `full`: also the layers that only newer
    kernels have. `process`: limits and separate processes only, which does not stop hostile code."""

    def __post_init__(self) -> None:
        if isinstance(self.preload, str) or not all(isinstance(name, str) for name in self.preload):
            raise ValueError(f"preload must be a list of module names, got {self.preload!r}")
        object.__setattr__(self, "preload", tuple(self.preload))
        if self.workers < 0:
            raise ValueError(f"workers must be 0 (one for each core) or more, got {self.workers}")
        if not 0 < self.call_timeout <= 3600:
            raise ValueError(f"call_timeout must be in (0, 3600] seconds, got {self.call_timeout}")
        if not self.call_timeout <= self.function_timeout <= 86400:
            raise ValueError(
                f"function_timeout must lie between call_timeout ({self.call_timeout}) and 86400 seconds, "
                f"got {self.function_timeout}"
            )
        if not 16 <= self.memory_mb <= 1 << 20:
            raise ValueError(f"memory_mb must be in [16, {1 << 20}], got {self.memory_mb}")
        if self.isolation not in ISOLATIONS:
            raise ValueError(f"isolation must be one of {', '.join(ISOLATIONS)}, got {self.isolation!r}")

    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))

    def heavy_modules(self) -> tuple[str, ...]:
        """The modules beyond `light`, in the order in which they were asked for."""
        names: dict[str, None] = {}
        for name in self.preload:
            if name == "heavy":
                names.update(dict.fromkeys(module for module in HEAVY if importlib.util.find_spec(module)))
            elif name != "light":
                names[name] = None
        return tuple(names)


WAIT_FACTOR = 2.0
WALL_FACTOR = 4.0
STARVED_RETRIES = 5  # fresh children for a call that got no processor on a busy machine
MIN_LOAD_TIMEOUT = 1.0  # loading a function may import modules that nobody preloaded

# One message of the parent to a worker, for each of at most `MOST_JOBS` jobs: its number, how many inputs (0: forget
# that job). With each comes a file descriptor. The answer is ANSWER and the numbers of jobs that are done: what
# happened stands in the files. Whatever else a worker says are its last words.
JOB = struct.Struct("<QI")
MOST_JOBS = 16
ANSWER = b"\0"
DONE = struct.Struct("<Q")

# The file: one byte that says how far the child came, one byte for each input, then the code and the inputs.
PHASE_NEW, PHASE_LOADING, PHASE_LOADED, PHASE_ALONE = range(4)
_LENGTH = struct.Struct("<Q")


def pack(code: str, inputs: Sequence[str]) -> bytes:
    """The content of the file for a job. Any str survives: lone surrogates and NULs too."""
    parts = [bytes(1 + len(inputs))]
    for text in (code, *inputs):
        data = text.encode("utf-8", "surrogatepass")
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def unpack(data: bytes, count: int) -> tuple[str, list[str]]:
    texts = []
    offset = 1 + count
    for _ in range(1 + count):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        texts.append(data[offset : offset + length].decode("utf-8", "surrogatepass"))
        offset += length
    return texts[0], texts[1:]


_IMPORT = re.compile(r"^\s*(?:import|from)\s+([^#\n;]+)", re.MULTILINE)


def imports_any(code: str, modules: Sequence[str]) -> bool:
    """Whether the code seems to import one of the modules: a guess, and safety does not rest on it."""
    roots = {name.partition(".")[0] for name in modules}
    return any(
        roots.intersection(re.findall(r"[A-Za-z_]\w*", statement.partition(" import ")[0]))
        for statement in _IMPORT.findall(code)
    )
