"""What runs inside: a fresh fork that loads one function, calls it on each input, and dies.

Everything here shares its process with hostile code from the moment `exec` starts. It may lie about its own results and
carry state between its own inputs; it has nothing else to touch. Nothing after that moment may be relied on by anybody:
who watches and who counts stands outside, in `zygote.py` and `pool.py`.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
from types import ModuleType
from typing import Any, NoReturn

from autoif_blocks.sandbox.kernel import Gate
from autoif_blocks.sandbox.layers import MAX_FILES
from autoif_blocks.sandbox.policy import PHASE_LOADED, Outcome, unpack

_MODULE = "verification_function"
_TRUE, _FALSE, _NONE = int(Outcome.TRUE), int(Outcome.FALSE), int(Outcome.NONE)
_TRUTHY, _FALSY, _EXCEPTION = int(Outcome.TRUTHY), int(Outcome.FALSY), int(Outcome.EXCEPTION)
_MEMORY, _EXIT, _LOAD_ERROR = int(Outcome.MEMORY), int(Outcome.EXIT), int(Outcome.LOAD_ERROR)


def run(gate: Gate, fd: int, count: int) -> NoReturn:
    """Run the job in the file `fd`: only the inputs that have no result yet."""
    try:
        gate.close()
        shared = mmap.mmap(fd, 0)
        # The mapping outlives the descriptors. What is left is /dev/null, three times.
        os.closerange(3, MAX_FILES)
        code, inputs = unpack(shared[:], count)
        evaluate = _load(code)
        if evaluate is None:
            for index in range(1, count + 1):
                shared[index] = shared[index] or _LOAD_ERROR
        else:
            shared[0] = PHASE_LOADED
            _call_each(evaluate, inputs, shared)
    finally:
        os._exit(0)


def _load(code: str) -> Any:
    """The function that the code defines, or None."""
    module = ModuleType(_MODULE)
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
    evaluate = _load(_WARM_UP)
    for text in ("One two three four.", "- a list\n- of things", "", "ünïcödé 🙂 text"):
        evaluate(text)
    del sys.modules[_MODULE]
    gc.freeze()
