"""What runs inside: a fresh fork that loads a function, or a few dull ones, calls them on their inputs, and dies.

Everything here shares its process with hostile code from the moment `exec` starts. It may lie about its own results and
carry state between its own inputs; it has nothing else to touch. Nothing after that moment may be relied on by anybody:
who watches and who counts stands outside, in `zygote.py` and `pool.py`.
"""

from __future__ import annotations

import ast
import gc
import mmap
import os
import resource
import sys
from types import ModuleType
from typing import Any, NoReturn

from autoif_blocks.sandbox.dull import is_dull
from autoif_blocks.sandbox.kernel import Gate
from autoif_blocks.sandbox.layers import MAX_FILES
from autoif_blocks.sandbox.policy import PHASE_ALONE, PHASE_LOADED, PHASE_LOADING, Outcome, unpack

MUCH_MEMORY = 16 << 20  # bytes that dull functions may add to a child before it is replaced
_MODULE = "verification_function"
_TRUE, _FALSE, _NONE = int(Outcome.TRUE), int(Outcome.FALSE), int(Outcome.NONE)
_TRUTHY, _FALSY, _EXCEPTION = int(Outcome.TRUTHY), int(Outcome.FALSY), int(Outcome.EXCEPTION)
_MEMORY, _EXIT, _LOAD_ERROR = int(Outcome.MEMORY), int(Outcome.EXIT), int(Outcome.LOAD_ERROR)


def run(gate: Gate, jobs: list[tuple[int, int]]) -> NoReturn:
    """Run jobs, each in the file of a descriptor and with so many inputs: only the inputs that have no result yet.

    One job is run whatever it is, with nothing of anybody else's within reach. Of several, those are run that are dull;
    the others are marked and left to a child of their own.
    """
    try:
        gate.close()
        if len(jobs) == 1:
            ((fd, count),) = jobs
            shared = mmap.mmap(fd, 0)
            # The mapping outlives the descriptors. What is left is /dev/null, three times.
            os.closerange(3, MAX_FILES)
            shared[0] = PHASE_LOADING
            code, inputs = unpack(shared[:], count)
            _run(shared, code, inputs)
        else:
            _run_dull(jobs)
    finally:
        os._exit(0)


def _run_dull(jobs: list[tuple[int, int]]) -> None:
    memory = _peak_memory()
    for fd, count in jobs:
        with mmap.mmap(fd, 0) as shared:
            shared[0] = PHASE_LOADING
            code, inputs = unpack(shared[:], count)
            try:
                tree = ast.parse(code)
                dull = is_dull(tree)
            except Exception:
                dull = False
            if dull:
                _run(shared, tree, inputs)
            else:
                shared[0] = PHASE_ALONE
            short_of_memory = shared.find(bytes([_MEMORY]), 1, 1 + count) > 0
        if short_of_memory or _peak_memory() - memory > MUCH_MEMORY:
            return  # the next one shall have all that it was promised


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _run(shared: mmap.mmap, code: str | ast.Module, inputs: list[str]) -> None:
    module = ModuleType(_MODULE)
    evaluate = _load(module, code)
    if evaluate is None:
        for index in range(1, len(inputs) + 1):
            shared[index] = shared[index] or _LOAD_ERROR
    else:
        shared[0] = PHASE_LOADED
        _call_each(evaluate, inputs, shared)
    module.__dict__.clear()  # functions and their globals hold one another


def _load(module: ModuleType, code: str | ast.Module) -> Any:
    """The function that the code defines, or None."""
    # dataclasses and typing look a class's module up there; one namespace, so that imports and helpers are found
    sys.modules[_MODULE] = module
    try:
        exec(compile(code, f"<{_MODULE}>", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        evaluate = module.__dict__.get("evaluate")
        return evaluate if callable(evaluate) else None
    except BaseException:
        return None


def _call_each(evaluate: Any, inputs: list[str], shared: mmap.mmap) -> None:
    for index, text in enumerate(inputs, start=1):
        if shared[index]:
            continue
        try:
            result = evaluate(text)
            if result is True:
                outcome = _TRUE
            elif result is False:
                outcome = _FALSE
            elif result is None:
                outcome = _NONE
            else:
                outcome = _TRUTHY if result else _FALSY  # may call a method of its own: hence inside the try
        except MemoryError:
            outcome = _MEMORY
        except SystemExit:
            outcome = _EXIT
        except BaseException:
            outcome = _EXCEPTION
        shared[index] = outcome


_WARM_UP = '''
import re, json
def helper(text):
    return [word for word in re.findall(r"\\w+", text) if not word.isdigit()]
def evaluate(response):
    """Exercises what nearly every verification function does."""
    try:
        words = helper(response.lower())
        counts = {word: words.count(word) for word in set(words)}
        data = json.loads(json.dumps({"words": words, "n": len(words)}))
        first, *rest = response.split() or [""]
        if any(line.strip().startswith(("-", "*")) for line in response.splitlines()):
            raise ValueError(f"{first!r} and {len(rest):d} more")
        total = sum(counts.values())
        return total > 3 and data["n"] == total and re.match(r"^[A-Z].*[.!?]$", response) is not None
    except (KeyError, ValueError) as error:
        return str(error) == ""
    finally:
        gone = sorted(range(10), key=lambda number: -number)
'''


def warm_up() -> None:
    """Do once, before any fork, what the interpreter otherwise does lazily in every child (types of the compiler…)."""
    evaluate = _load(ModuleType(_MODULE), ast.parse(_WARM_UP))
    is_dull(ast.parse(_WARM_UP))
    for text in ("One two three four.", "- a list\n- of things", "", "ünïcödé 🙂 text"):
        evaluate(text)
    del sys.modules[_MODULE]
    gc.set_threshold(10_000)  # a syntax tree alone is more than the usual 700 objects
    gc.freeze()
