"""The parent's side of the sandbox: numbers, bounds, orders, and workers that are lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest
from test_sandbox import returns, until, with_sandbox, workers_of

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig, doctor, worker
from autoif_blocks.sandbox.policy import (
    MOST_JOBS,
    STARVED_RETRIES,
    WALL_FACTOR,
    imports_any,
    pack,
    unpack,
)

O = Outcome  # noqa: E741


def test_each_outcome_has_a_byte_of_its_own() -> None:
    """Zero is a call that has not ended."""
    names = "TRUE FALSE NONE TRUTHY FALSY EXCEPTION TIMEOUT MEMORY CRASH EXIT LOAD_ERROR".split()  # noqa: SIM905
    assert {name: int(outcome) for name, outcome in Outcome.__members__.items()} == dict(
        zip(names, range(1, 12), strict=True)
    )


# The configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"call_timeout": 3600.5, "function_timeout": 9000}, r"call_timeout must be in \(0, 3600\]"),
        ({"call_timeout": -1}, "call_timeout must be"),
        ({"function_timeout": 86400.5}, "function_timeout must lie between"),
        ({"function_timeout": 0.5}, "function_timeout must lie between"),
        ({"memory_mb": 15}, r"memory_mb must be in \[16, 1048576\]"),
        ({"memory_mb": 2**20 + 1}, "memory_mb must be"),
        ({"preload": ["light", 5]}, "preload must be a list"),
        ({"call_timeout": 3600, "function_timeout": 3600, "memory_mb": 16}, None),
        ({"call_timeout": 0.001, "function_timeout": 86400, "memory_mb": 2**20, "workers": 1}, None),
    ],
)
def test_options_have_bounds(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert SandboxConfig(**options).isolation == "auto"
    else:
        with pytest.raises(ValueError, match=message):
            SandboxConfig(**options)


def test_a_worker_for_each_core_unless_told() -> None:
    assert SandboxConfig().worker_count() == len(os.sched_getaffinity(0))
    assert SandboxConfig(workers=3).worker_count() == 3


@pytest.mark.parametrize(
    ("preload", "modules"),
    [(("light",), ()), ((), ()), (("b", "light", "a", "b"), ("b", "a")), (("x", "heavy"), ("x", "json"))],
)
def test_modules_beyond_light(preload: tuple[str, ...], modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoif_blocks.sandbox.policy.HEAVY", ("no_such_module", "json"))
    assert SandboxConfig(preload=preload).heavy_modules() == modules


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import numpy", True), ("import os, numpy as np", True), ("from numpy.linalg import norm", True),
        ("def f():\n    import numpy", True), ("import numpy_two", False), ("from os import numpy", False),
        ("x = 'import numpy'", False), ("# import numpy", False), ("import os  # numpy", False), ("", False),
    ],
)  # fmt: skip
def test_what_a_function_imports_is_guessed(code: str, found: bool) -> None:
    assert imports_any(code, ("nltk.corpus", "numpy")) == found


@pytest.mark.parametrize("texts", [[], ["a"], ["", "\0", "\ud800é"], ["x" * 1000, "y"] * 3])
def test_what_is_packed_can_be_unpacked(texts: list[str]) -> None:
    data = pack("code \udfff", texts)
    assert data[: 1 + len(texts)] == bytes(1 + len(texts))
    assert unpack(data, len(texts)) == ("code \udfff", texts)


def test_it_runs_only_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(SandboxUnavailable, match=f"only on Linux, and this is {platform}"):
            with_sandbox(lambda sandbox: sandbox.execute(returns("True"), ["a"]))
        assert [(layer.name, layer.ok) for layer in doctor()] == [("linux", False)]


def test_one_that_does_not_start_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "START_SECONDS", 0.001)
    sandbox = Sandbox(SandboxConfig(workers=2))

    async def main() -> None:
        with pytest.raises(SandboxUnavailable, match="could not start: no sign of life within 0 s"):
            await sandbox.__aenter__()
        assert workers_of() == []
        with pytest.raises(SandboxUnavailable, match="not open"):
            await sandbox.execute(returns("True"), ["a"])

    asyncio.run(main())


# Functions that are asked for together


def test_many_functions_together_are_answered_in_their_order() -> None:
    """More than one message holds, and some without inputs."""
    functions = [(returns(f"response == '{n}'"), [str(k) for k in range(n % 5)]) for n in range(3 * MOST_JOBS + 1)]

    async def use(sandbox: Sandbox) -> None:
        async with asyncio.timeout(60):
            found = await sandbox.execute_all(functions)
        assert found == [[O.TRUE if k == n else O.FALSE for k in range(n % 5)] for n in range(len(functions))]
        assert await sandbox.execute_all([]) == []

    with_sandbox(use)


def test_who_is_given_up_takes_no_others_along() -> None:
    """Of several that wait for their turn, the one whose caller is gone, and neither earlier nor later ones."""

    async def use(sandbox: Sandbox) -> None:
        slow = "import time\ndef evaluate(response):\n    time.sleep(0.2)\n    return True"
        tasks = [asyncio.create_task(sandbox.execute(slow, ["a", "b"])) for _ in range(7)]
        await asyncio.sleep(0.1)
        tasks[4].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(4), asyncio.CancelledError)
        assert found == [[O.TRUE, O.TRUE]] * 6

    with_sandbox(use, SandboxConfig(workers=1))


# Workers that are lost


def test_a_worker_that_says_nothing_is_replaced() -> None:
    async def use(sandbox: Sandbox) -> None:
        (stopped,) = workers_of()
        os.kill(stopped, signal.SIGSTOP)
        sandbox._patience = 0.3
        asked = asyncio.create_task(sandbox.execute(returns("True"), ["a"]))
        await until(lambda: stopped not in workers_of())
        sandbox._patience = 60.0
        async with asyncio.timeout(60):
            assert await asked == [O.TRUE]

    with_sandbox(use, SandboxConfig(workers=1))


def test_what_two_workers_say_nothing_of_is_a_crash() -> None:
    async def use(sandbox: Sandbox) -> None:
        sandbox._patience = 0.4
        async with asyncio.timeout(60):
            assert await sandbox.execute("def evaluate(r):\n    while True: pass", ["a", "b"]) == [O.CRASH] * 2

    with_sandbox(use, SandboxConfig(workers=1, call_timeout=60, function_timeout=60))


@pytest.mark.parametrize(("call", "function"), [(0.1, 0.1), (1.0, 10.0), (60.0, 3600.0)])
def test_the_parent_is_more_patient_than_a_worker(call: float, function: float) -> None:
    """And not without end: all children that a starved function may have, and the start of a worker."""
    longest = (1 + STARVED_RETRIES) * WALL_FACTOR * (function + call)
    patience = Sandbox(SandboxConfig(call_timeout=call, function_timeout=function))._patience
    assert longest < patience < longest + 120
