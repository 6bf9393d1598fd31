"""The sandbox's contract: one outcome for each input, whatever the function does, and every job gets an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import children

from autoif_blocks.errors import SandboxUnavailable
from autoif_blocks.sandbox import Outcome, Sandbox, SandboxConfig
from autoif_blocks.sandbox.policy import WALL_FACTOR
from autoif_blocks.sandbox.pool import ATTEMPTS

O = Outcome  # noqa: E741
QUICK = SandboxConfig(workers=1, call_timeout=0.2, function_timeout=2.0, memory_mb=128)


def with_sandbox(use: Callable[[Sandbox], Awaitable[Any]], config: SandboxConfig = QUICK) -> Any:
    async def main() -> Any:
        async with Sandbox(config) as sandbox:
            return await use(sandbox)

    return asyncio.run(main())


def execute(code: str, *inputs: str, config: SandboxConfig = QUICK) -> list[Outcome]:
    return with_sandbox(lambda sandbox: sandbox.execute(code, inputs), config)


def returns(expression: str, setup: str = "") -> str:
    return f"{setup}\ndef evaluate(response):\n    return {expression}\n"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a descriptor or a process behind."""
    files = list(Path("/proc/self/fd").iterdir())
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(files)
    assert children(os.getpid()) == []


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (returns("True"), O.TRUE),
        (returns("False"), O.FALSE),
        (returns("None"), O.NONE),
        ("def evaluate(response):\n    if response == 'other': return True", O.NONE),
        (returns("1"), O.TRUTHY),
        (returns("re.match('a', response)", "import re"), O.TRUTHY),
        (returns("'false'"), O.TRUTHY),
        (returns("0"), O.FALSY),
        (returns("[]"), O.FALSY),
        (returns("1 / 0"), O.EXCEPTION),
        ("def evaluate(): return True", O.EXCEPTION),
        ("class Odd:\n    def __bool__(self): raise ValueError\n" + returns("Odd()"), O.EXCEPTION),
        (returns("f(0)", "def f(n): return f(n + 1)"), O.EXCEPTION),
        (returns("input()"), O.EXCEPTION),
        (returns("bytes(10**9)"), O.MEMORY),
        (returns("sys.exit(0)", "import sys"), O.EXIT),
        (returns("exit()"), O.EXIT),
        (returns("os._exit(0)", "import os"), O.EXIT),
        (returns("os.abort()", "import os"), O.CRASH),
        (returns("[n for n in iter(int, 1)]"), O.TIMEOUT),
        ("def evaluate(response) return True", O.LOAD_ERROR),
        ("", O.LOAD_ERROR),
        ("evaluate = 3", O.LOAD_ERROR),
        ("import no_such_module\n" + returns("True"), O.LOAD_ERROR),
        ("raise SystemExit\n" + returns("True"), O.LOAD_ERROR),
        ("import os\nos._exit(0)\n" + returns("True"), O.LOAD_ERROR),
        ("\0", O.LOAD_ERROR),
        ("'\ud800'\n" + returns("True"), O.LOAD_ERROR),
    ],
)
def test_each_end_of_a_call_has_its_outcome(code: str, outcome: Outcome) -> None:
    assert execute(code, "a") == [outcome]


def test_verdicts() -> None:
    assert [outcome.name for outcome in Outcome if outcome.verdict is True] == ["TRUE", "TRUTHY"]
    assert [outcome.name for outcome in Outcome if outcome.verdict is False] == ["FALSE", "FALSY"]


def test_code_that_hangs_while_it_loads_is_a_load_error() -> None:
    assert execute("while True: pass", "a", "b") == [O.LOAD_ERROR] * 2


def test_one_namespace_for_imports_helpers_and_classes() -> None:
    code = """
from __future__ import annotations
import re
from dataclasses import dataclass
LIMIT = 2
@dataclass
class Count:
    words: int
def helper(text):
    return Count(len(re.findall(r"\\w+", text)))
def evaluate(response):
    return helper(response).words > LIMIT
"""
    assert execute(code, "one two", "one two three") == [O.FALSE, O.TRUE]


def test_any_text_arrives_as_it_is() -> None:
    texts = ["", "\0", "a\0b", "\ud800", "\udfff\ud800", "é🙂\u2028", "x" * 300_000, "\r\n"]
    code = f"seen = iter({texts[:-2]!r} + ['x' * 300_000, chr(13) + chr(10)])\n" + returns("response == next(seen)")
    assert execute(code, *texts) == [O.TRUE] * len(texts)


def test_no_inputs_no_outcomes() -> None:
    assert execute(returns("True")) == []


def test_inputs_after_a_bad_one_still_get_their_answer() -> None:
    code = """
import os, sys
def evaluate(response):
    if response == "hang":
        while True:
            try:
                while True: pass
            except BaseException: pass
    if response == "exit": os._exit(1)
    if response == "abort": os.abort()
    if response == "leave": sys.exit()
    if response == "fill": bytes(10**10)
    return response == "good"
"""
    inputs = ["good", "hang", "bad", "exit", "good", "abort", "leave", "fill", "good"]
    expected = [O.TRUE, O.TIMEOUT, O.FALSE, O.EXIT, O.TRUE, O.CRASH, O.EXIT, O.MEMORY, O.TRUE]
    assert execute(code, *inputs) == expected


def test_function_timeout_ends_it_all() -> None:
    code = "import time\ndef evaluate(response):\n    start = time.process_time()\n"
    code += "    while time.process_time() - start < 0.15: pass\n    return True"
    config = SandboxConfig(workers=1, call_timeout=0.2, function_timeout=0.6)
    outcomes = execute(code, *"abcdefghijkl", config=config)
    assert outcomes[:2] == [O.TRUE, O.TRUE]
    assert outcomes[-3:] == [O.TIMEOUT] * 3
    start = time.monotonic()
    assert execute("def evaluate(response):\n    while True: pass", *"ab" * 50, config=config) == [O.TIMEOUT] * 100
    assert time.monotonic() - start < 4


def test_waiting_is_not_for_ever() -> None:
    start = time.monotonic()
    assert execute("import time\ndef evaluate(response): time.sleep(60)", "a") == [O.TIMEOUT]
    assert time.monotonic() - start < 3


def test_a_slow_but_honest_call_survives_a_busy_machine() -> None:
    """Starved of processor time for longer than call_timeout, it is still not a TIMEOUT."""
    burn = "import time\ndef evaluate(response):\n    end = time.process_time() + 0.15\n"
    burn += "    while time.process_time() < end: pass\n    return True"

    async def use(sandbox: Sandbox) -> None:
        for outcomes in await asyncio.gather(*(sandbox.execute(burn, ["a"]) for _ in range(16))):
            assert outcomes == [O.TRUE]

    with_sandbox(use, SandboxConfig(workers=2 * len(os.sched_getaffinity(0)), call_timeout=0.25))


def test_a_machine_that_stands_still_costs_no_call_its_answer() -> None:
    """Stopped and continued, as when it is suspended, for longer than a function may take by the clock."""
    burn = "import time\ndef evaluate(response):\n    end = time.process_time() + 0.25\n"
    burn += "    while time.process_time() < end: pass\n    return True"

    async def use(sandbox: Sandbox) -> None:
        task = asyncio.create_task(sandbox.execute(burn, ["a"]))
        (worker,) = workers_of()
        await until(lambda: any(busy(child) for child in children(worker)))
        stopped = [worker, *children(worker)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in stopped:
                os.kill(pid, number)
            await asyncio.sleep(WALL_FACTOR * 0.3 + 0.3)
        assert await task == [O.TRUE]

    with_sandbox(use, SandboxConfig(workers=1, call_timeout=0.3, function_timeout=0.3))


def test_no_state_survives_a_function() -> None:
    poison = """
import builtins, re, json, sys, random
builtins.len = lambda thing: 0
re.match = re.search = json.loads = None
sys.modules["math"] = None
random.seed(1)
def evaluate(response): return True
"""
    honest = "import re, json, math\n" + returns("len(response) == 1 and bool(re.match('a', response)) and math.pi > 3")

    async def use(sandbox: Sandbox) -> None:
        before = await sandbox.execute(honest, ["a"])
        assert await sandbox.execute(poison, ["a"]) == [O.TRUE]
        assert before == await sandbox.execute(honest, ["a"]) == [O.TRUE]

    with_sandbox(use)


def test_chance_and_order_are_the_same_in_every_run() -> None:
    codes = [
        returns("random.random() < 0.5", "import random"),
        returns("int(next(iter({response, 'x', 'y', 'zz'})) < 'x')"),
        returns("hash(response) % 2 == 0"),
    ]
    inputs = [str(n) for n in range(20)]
    first = [execute(code, *inputs) for code in codes]
    assert first == [execute(code, *inputs) for code in codes]
    assert all(len(set(outcomes)) == 2 for outcomes in first)


def test_nothing_of_the_parent_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    assert execute(returns("len(os.environ) == 0", "import os"), "a") == [O.TRUE]
    descriptors = """
import os
def evaluate(response):
    found = []
    for fd in range(1000):
        try:
            os.fstat(fd)
            found.append(fd)
        except OSError: pass
    return found == [0, 1, 2]
"""
    # With many files open in the parent, the worker's own socket has a high number when it starts.
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    try:
        assert execute(descriptors, "a") == [O.TRUE]
    finally:
        for file in files:
            os.close(file)


def test_many_callers_at_once_each_get_their_own_answers() -> None:
    async def use(sandbox: Sandbox) -> None:
        codes = [returns(f"int(response) % {n + 2} == 0") for n in range(60)]
        inputs = [str(n) for n in range(30)]
        answers = await asyncio.gather(*(sandbox.execute(code, inputs) for code in codes))
        for n, outcomes in enumerate(answers):
            assert outcomes == [O.TRUE if k % (n + 2) == 0 else O.FALSE for k in range(30)]

    with_sandbox(use, SandboxConfig(workers=2))


def test_a_cancelled_caller_leaves_a_sound_sandbox() -> None:
    async def use(sandbox: Sandbox) -> None:
        hang = "def evaluate(response):\n    while True: pass"
        for wait in (0.0, 0.001, 0.05):
            tasks = [asyncio.create_task(sandbox.execute(hang, ["a"])) for _ in range(8)]
            await asyncio.sleep(wait)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
        # call_timeout is a minute: only because the children were killed is there room for this one
        async with asyncio.timeout(5):
            assert await sandbox.execute(returns("True"), ["a"]) == [O.TRUE]

    with_sandbox(use, SandboxConfig(workers=1, call_timeout=60, function_timeout=60))


def test_a_dead_worker_is_replaced_and_its_jobs_run_again() -> None:
    async def use(sandbox: Sandbox) -> None:
        slow = "import time\ndef evaluate(response):\n    time.sleep(0.3)\n    return True"
        tasks = [asyncio.create_task(sandbox.execute(slow, ["a"])) for _ in range(4)]
        await asyncio.sleep(0.1)
        os.kill(workers_of()[0], 9)
        assert await asyncio.gather(*tasks) == [[O.TRUE]] * 4
        assert await sandbox.execute(returns("False"), ["a"]) == [O.FALSE]

    with_sandbox(use, SandboxConfig(workers=1))


def test_a_job_that_loses_two_workers_is_a_crash() -> None:
    async def use(sandbox: Sandbox) -> None:
        hang = "def evaluate(response):\n    while True: pass"
        task = asyncio.create_task(sandbox.execute(hang, ["a", "b"]))
        for _ in range(2):
            await until(lambda: any(busy(child) for worker in workers_of() for child in children(worker)))
            worker = workers_of()[0]
            os.kill(worker, 9)
            await until(lambda worker=worker: worker not in workers_of())
        assert await task == [O.CRASH] * 2

    with_sandbox(use, SandboxConfig(workers=1, call_timeout=60, function_timeout=60))


@pytest.mark.parametrize("kills", [1, ATTEMPTS - 1, ATTEMPTS])
def test_a_worker_that_is_killed_while_it_starts_is_replaced(kills: int) -> None:
    async def kill() -> None:
        for _ in range(kills):
            await until(lambda: bool(workers_of()))
            worker = workers_of()[0]
            os.kill(worker, 9)
            await until(lambda worker=worker: worker not in workers_of())

    async def start() -> list[Outcome]:
        killer = asyncio.create_task(kill())
        async with Sandbox(SandboxConfig(workers=1)) as sandbox:
            await killer
            return await sandbox.execute(returns("True"), ["a"])

    if kills < ATTEMPTS:
        assert asyncio.run(start()) == [O.TRUE]
    else:
        with pytest.raises(SandboxUnavailable, match="could not start: it ended with code -9"):
            asyncio.run(start())


def test_works_from_a_loop_in_another_thread() -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(execute(returns("True"), "a")))
    thread.start()
    thread.join()
    assert answers == [[O.TRUE]]


def test_use_outside_of_its_block_is_an_error() -> None:
    sandbox = Sandbox(QUICK)
    with pytest.raises(SandboxUnavailable, match="async with"):
        asyncio.run(sandbox.execute(returns("True"), ["a"]))


def test_closing_while_functions_run_fails_them_and_frees_all() -> None:
    async def main() -> None:
        async with Sandbox(SandboxConfig(workers=1)) as sandbox:
            task = asyncio.create_task(sandbox.execute("while True: pass", ["a"]))
            await asyncio.sleep(0.1)
        with pytest.raises(SandboxUnavailable, match="closed"):
            await task

    asyncio.run(main())


def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    config = SandboxConfig(workers=1, preload=("light", "no_such_module"))
    with pytest.raises(SandboxUnavailable, match="no_such_module"):
        execute("import no_such_module\n" + returns("True"), "a", config=config)


def test_heavy_modules_live_in_workers_of_their_own() -> None:
    pytest.importorskip("numpy")
    config = SandboxConfig(workers=1, preload=("numpy",))

    async def use(sandbox: Sandbox) -> None:
        assert await sandbox.execute(returns("'numpy' in sys.modules", "import sys"), ["a"]) == [O.FALSE]
        code = returns("np.mean([len(word) for word in response.split()]) > 2", "import numpy as np")
        assert await sandbox.execute(code, ["a bb", "aaa bbb"]) == [O.FALSY, O.TRUTHY]

    with_sandbox(use, config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers must be"),
        ({"call_timeout": 0}, "call_timeout must be"),
        ({"call_timeout": 20.0}, "function_timeout must lie between call_timeout"),
        ({"memory_mb": 1}, "memory_mb must be"),
        ({"isolation": "none"}, "isolation must be one of auto, full, process, got 'none'"),
        ({"preload": "light"}, "preload must be a list"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SandboxConfig(**options)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (processes have no event to wait for)
            await asyncio.sleep(0.01)


def workers_of() -> list[int]:
    return [pid for pid in children(os.getpid()) if "autoif_blocks.sandbox" in Path(f"/proc/{pid}/cmdline").read_text()]


def busy(pid: int) -> bool:
    """It has computed for a while: it is running a function, not the self-test of a worker that starts."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().split()[13]) > 5
    except (FileNotFoundError, ProcessLookupError):
        return False
