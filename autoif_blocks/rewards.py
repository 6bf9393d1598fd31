"""Rewards: how well a response follows its prompt's constraints, as model-written functions judge it in the sandbox.

    rewards = Rewards()
    rewards(row["ground_truth"], "One. Two. Three.")           # 0.0 to 1.0; from any thread
    await rewards.score(row["ground_truth"], "One. Two.")      # from any event loop

`ground_truth` is what `format_rlvr` writes: JSON, a list of constraints, each with its `instruction`, the `functions`
that check it, a `weight`, and the `pass_rate` that makes it satisfied. The reward is the satisfied constraints' share
of the weight. Each constraint is judged for itself: a function that crashes, hangs or worse has not accepted, and costs
nothing but its vote, which counts by its place in `function_weights`, where a constraint has them. No constraint is
left out: one whose functions all fail is not satisfied.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .blocks.functions import part, share, weights_of
from .blocks.threshold import Threshold
from .errors import SandboxUnavailable
from .parsing import strip_reasoning
from .sandbox import Outcome, Sandbox, SandboxConfig

PASS_RATE = "> 0.5"
_MOST_WEIGHT = 1e9  # so that no sum of them is infinite


@dataclass(frozen=True)
class Constraint:
    """One thing that a response must be, and what checks it."""

    functions: list[str]
    weight: float
    pass_rate: Threshold
    """the share of the functions' votes that must accept a response"""
    function_weights: list[float] | None = None
    """what the vote of each function counts; None: all the same"""


def constraints_of(ground_truth: object) -> list[Constraint]:
    """The constraints of a `ground_truth`: its JSON, what that holds, or one of these in a list, as some trainers do.

    Raises:
        ValueError: it is something else, or holds no constraint.
    """
    found = ground_truth
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], (str, list)):
        found = found[0]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"ground_truth is no JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise ValueError(f"ground_truth must be a list of at least one constraint, got {str(ground_truth)[:80]!r}")
    return [_constraint(each) for each in found]


def _constraint(row: object) -> Constraint:
    given: dict[str, Any] = row if isinstance(row, dict) else {}
    functions, weight = given.get("functions"), given.get("weight", 1.0)
    if not isinstance(functions, list) or not functions or not all(isinstance(code, str) for code in functions):
        raise ValueError(f"a constraint needs 'functions', a list of at least one, got {str(row)[:80]!r}")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= _MOST_WEIGHT:
        raise ValueError(f"a constraint's weight must be a number up to 1e9 and above 0, got {str(weight)[:80]!r}")
    weights = weights_of(given, "function_weights") if given.get("function_weights") is not None else None
    if weights is not None and not any(weights):
        raise ValueError("a constraint's function_weights must not all be 0")
    return Constraint(functions, float(weight), Threshold(given.get("pass_rate", PASS_RATE)), weights)


def reward_of(constraints: Sequence[Constraint], runs: Sequence[Sequence[Outcome]]) -> float:
    """The satisfied constraints' share of the weight; `runs` has each function's outcomes, constraint by constraint."""
    waiting = iter(runs)
    satisfied = []
    for constraint in constraints:
        accepted = share([next(waiting)[0].verdict is True for _ in constraint.functions], constraint.function_weights)
        satisfied.append(constraint.pass_rate.passes(accepted))
    return part([constraint.weight for constraint in constraints], satisfied)


class Rewards:
    """Scores responses, from any thread and any event loop; the sandbox starts with the first one.

    It lives in a thread of its own until `close()`, or until the process ends.

    Args:
        config: the sandbox's limits; by default as many processes as there are cores.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig(call_timeout=0.5, function_timeout=1.0)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sandbox: Sandbox | None = None

    def __call__(self, ground_truth: object, response: str) -> float:
        """As `score`, and waits. Not for a coroutine: its event loop would stand still."""
        return asyncio.run_coroutine_threadsafe(self._score(ground_truth, response), self._running()).result()

    async def score(self, ground_truth: object, response: str) -> float:
        """The reward of a response, 0 to 1. What a model thought aloud is no part of it; an empty response gets 0.

        Raises:
            ValueError: `ground_truth` holds no constraints.
            SandboxUnavailable: functions cannot be run here, or no more.
        """
        loop = await asyncio.to_thread(self._running)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._score(ground_truth, response), loop))

    async def _score(self, ground_truth: object, response: str) -> float:
        constraints = constraints_of(ground_truth)
        answer = strip_reasoning(response)
        if not answer.strip():
            return 0.0
        if self._sandbox is None:
            raise SandboxUnavailable("the rewards were closed while a response waited for one")
        jobs = [(code, [answer]) for constraint in constraints for code in constraint.functions]
        return reward_of(constraints, await self._sandbox.execute_all(jobs))

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, and in it the sandbox; in a forked process they are started anew."""
        with self._starting:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="autoif-rewards", daemon=True)
                self._thread.start()
                try:
                    self._sandbox = asyncio.run_coroutine_threadsafe(self._open(), loop).result()
                except BaseException:
                    self._end(loop, self._thread)
                    raise
                self._loop = loop
            return self._loop

    async def _open(self) -> Sandbox:
        return await Sandbox(self.config).__aenter__()

    def close(self) -> None:
        """Ends the sandbox; the next response starts another."""
        with self._starting:
            loop, thread, sandbox = self._loop, self._thread, self._sandbox
            self._loop = self._thread = self._sandbox = None
            if loop is not None and thread is not None and thread.is_alive():
                if sandbox is not None:
                    asyncio.run_coroutine_threadsafe(sandbox.__aexit__(None, None, None), loop).result()
                self._end(loop, thread)

    @staticmethod
    def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
