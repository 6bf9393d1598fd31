"""A run: from a checked recipe to a finished output directory, or to a clear word about why not."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from .accounting import Meter
from .blocks.base import Block
from .blocks.filters import Limit
from .blocks.readers import Reader, ReadStep
from .blocks.writers import StepFile
from .cache_parts import fold
from .context import RunSettings
from .errors import BudgetSpent, RecipeError, TargetMissed, disk_trouble
from .executors import check_before, execute, stages_of
from .growth import Grower, Rounds
from .identity import changed_since, identity, refuse_to_overwrite
from .mirror import Mirror, mirrored
from .models import SIMULATED
from .outputs import CACHE_LOCK, forget_shards, held
from .recipe import Recipe
from .results import check_counts, further, partial_before, place
from .salvage import repair
from .series import Series
from .servers import server_specs
from .serving import serving
from .simulated import simulated_teacher
from .state import WORK, RunState, StepCounts
from .steps import Step
from .stopping import GRACE, Stop, stop_flag, told_by_signals, told_when
from .summary import Summary
from .timeline import recording
from .upkeep import delete_all, settle


class Listener(Protocol):
    """Is told how a run goes; `progress.py` has the one that the command line uses."""

    def started(self, recipe: Recipe, steps: list[Step], simulated: bool) -> None: ...
    def note(self, text: str) -> None: ...
    def watching(self, state: RunState) -> contextlib.AbstractContextManager[object]: ...


@dataclass(frozen=True)
class RunOptions:
    """What a run is told besides its recipe."""

    start_step: str | int = 1
    end_step: str | int | None = None
    limit: int | None = None
    """a trial: only so many records are read and leave step 1; a run that starts later takes the earlier file whole"""
    overwrite: bool = False
    """replace another recipe's results"""
    resume: bool = True
    """replay completions that an earlier run has paid for; False deletes them first"""
    listener: Listener | None = None
    limit_reading: bool = True
    """whether the limit holds for what step 1 reads, too"""
    exit_when_aborted: bool = False
    """the command line's own: a second Ctrl-C ends the whole process within a second, whatever it is doing"""


def target_left_aside(recipe: Recipe, options: RunOptions) -> str:
    """Why a run with these options cannot go on until the recipe's target is reached; nothing if it can."""
    grower = Grower.of(recipe.steps)
    if recipe.target is None or grower is None:
        return ""
    if options.limit is not None:
        return "--limit makes this a trial"
    if recipe.step_number(options.start_step) > grower.step:
        return f"this run begins after what could grow, {grower.title}"
    if options.end_step is not None and recipe.step_number(options.end_step) < len(recipe.steps):
        return "this run ends before the recipe does"
    return ""


def run(recipe: Recipe, options: RunOptions | None = None) -> dict[str, Any]:
    """Runs a recipe; see `Recipe.run`."""
    options = options or RunOptions()
    tell = options.listener.note if options.listener else lambda text: None
    with (
        held(recipe.output_dir, ".lock", "use another --output-dir", recipe.place),
        held(recipe.cache_dir, CACHE_LOCK, "use another --cache-dir", recipe.cache_url),
        mirrored(recipe, tell) as mirror,
    ):
        try:
            return _Run(recipe, options, mirror).run()
        except OSError as error:
            if (told := disk_trouble(error, recipe.output_dir)) is not None:
                raise told from error
            raise


class _Run:
    def __init__(self, recipe: Recipe, options: RunOptions, mirror: Mirror) -> None:
        self.mirror = mirror
        self.aside = target_left_aside(recipe, options)
        self.recipe = replace(recipe, target=None) if self.aside else recipe
        self.options = options
        self.output = recipe.output_dir
        self.work = (self.output / WORK).absolute()  # tasks may be begun elsewhere
        first = recipe.step_number(options.start_step)
        last = recipe.step_number(options.end_step) if options.end_step is not None else len(recipe.steps)
        if first > last:
            raise RecipeError(f"--start-step {options.start_step} comes after --end-step {options.end_step}")
        if options.limit is not None and options.limit < 1:
            raise RecipeError(f"--limit must be at least 1, got {options.limit}")
        self.steps = list(recipe.steps[first - 1 : last])
        self.began, self.clock = time.time(), time.monotonic()  # the time of day may be set meanwhile
        self.identity = identity(recipe)
        grower = Grower.of(recipe.steps)
        self.rounds = Rounds(self.recipe.target, grower) if self.recipe.target and grower else None
        # A run of later steps leaves what an earlier one did for its target as it is.
        self.after_growth = grower is not None and first > grower.step
        self.replacing = options.overwrite
        self.stay: set[str] = set()

    def run(self) -> dict[str, Any]:
        earlier = RunState.earlier(self.output) or {}
        self._check_before(earlier)
        self._note(repair(self.recipe.cache_dir))
        self._note(partial_before(self.recipe.steps, self.steps[0].number, earlier))
        self._note(changed_since(Series.identity_before(self.work), self.identity))
        self._fold()
        if not self.options.resume:
            self._start_afresh(earlier)
        self.series = Series.before(
            self.output, self.work, self.recipe.steps, self.steps[0].number, self.identity, self.options.resume,
            self.began,
        )  # fmt: skip
        self.summary = Summary(
            self.recipe, self.steps, self.identity, self.began, self.clock, self.series, self.options.limit,
            self.options.overwrite, self.rounds, self.after_growth,
        )  # fmt: skip
        models = self._models_used()
        simulated = any(self.recipe.models[name].base_url == SIMULATED for name in models)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.work)
        listener = self.options.listener
        if listener:
            listener.started(self.recipe, self.steps, simulated)
            if self.aside:
                listener.note(f"the recipe's target is left aside: {self.aside}")
        state = RunState(self.work, self.steps)
        self.work.mkdir(parents=True)
        self.series.keep(self.work, self.identity, self.began)
        flag = stop_flag(self.work / "stop.json")
        flag.stop = None  # of an earlier run in this process
        at_once = self._abort if self.options.exit_when_aborted else None
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(self._fold)
                if self.recipe.executor.type == "local":
                    logs = self.output / "logs"
                    # Outermost: a server may take longer to end than a run that was told to stop.
                    stack.enter_context(serving(self.servers.values(), self.work / "servers", logs, self._note))
                stack.enter_context(told_by_signals(flag, at_once))
                stack.enter_context(told_when(flag, self._tell, at_once))
                urls: dict[str, str] = {}
                if simulated:
                    url = stack.enter_context(simulated_teacher(self.output / "logs" / "teacher.log"))
                    urls = {name: url for name in models if self.recipe.models[name].base_url == SIMULATED}
                stack.enter_context(recording(state, self.output, self.began))
                if listener:
                    stack.enter_context(listener.watching(state))
                whole = self._run_rounds(state, urls)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            with contextlib.suppress(OSError):  # a full disk must not hide what filled it
                self._write_run_json_of_none("stopped" if stopped else "failed", "" if stopped else str(error))
            raise
        stop = None if whole else flag.look()
        why = stop.why if stop is not None and stop.kind == "budget" else ""
        missed = self.rounds.hopeless if whole and self.rounds and not self.rounds.reached else ""
        done, counts = whole and not missed, state.read()
        result = self.summary.write("completed" if done else "stopped", counts, self.stay, why or missed)
        complete = done and self.options.limit is None
        settle(self.recipe, counts, self.work.glob("stage-*/*.used") if complete else None, self._note)
        shutil.rmtree(self.work, ignore_errors=True)
        if missed:
            raise TargetMissed(
                f"the target is not reached: {result['records']} of {self.recipe.target} records, and {missed}. "
                f"All that were accepted are in {self.recipe.place}/{self.steps[-1].file}"
            )
        if whole:
            return result
        if why:
            raise BudgetSpent(
                f"{why}. What is finished is in {self.recipe.place}; the same command continues and may spend as much "
                "again, or raise the budget first"
            )
        self.mirror.send()
        raise KeyboardInterrupt

    def _run_rounds(self, state: RunState, urls: dict[str, str]) -> bool:
        """Runs the recipe, again and larger as long as a target asks for it; the files are in place after each round.

        Returns:
            Whether the last round came to its end. If not, the run was told to stop.
        """
        while True:
            whole = self._execute(urls, state.paid)
            counts = state.read()
            if whole and self.rounds is not None:
                self.rounds.done.append((self.rounds.size, counts[-1].whole.given))
            over = whole and (self.rounds is None or self.rounds.over)
            stale = self._files_of(RunState.earlier(self.output) or {}) if self.replacing else []
            # Less than an earlier run had is right where it is all that was asked for, as now with --overwrite.
            done = whole and (self.rounds is None or self.rounds.reached)
            self.stay = set() if done else self._further(counts)
            shards = self.recipe.shards if self.steps[-1].number == len(self.recipe.steps) else None
            rows = place(self.work, self.output, counts, self.stay, done or self.replacing, shards)
            for path in stale:
                if str(path.relative_to(self.output)) not in rows:
                    path.unlink(missing_ok=True)
            if whole:
                check_counts(counts, rows, self.stay)
            if over or not whole or self.rounds is None:
                return whole
            self.summary.write("stopped", counts, self.stay)
            self.replacing = False
            self._note(f"{self.rounds.told()}; round {len(self.rounds.done) + 1}: {self.rounds.size}")
            state.next_round()
            self.series.plus(counts).keep(self.work, self.identity, self.began)

    def _tell(self, stop: Stop) -> None:
        if self.options.listener is None or stop.kind == "failure":
            return
        why = f"{stop.why}; " if stop.why and stop.kind == "budget" else ""
        again = "; Ctrl-C again ends at once" if stop.kind == "signal" else ""
        self.options.listener.note(
            f"{why}stopping: nothing new is asked, requests in flight are waited for, at most {GRACE:.0f} s{again}"
        )

    def _abort(self) -> None:
        """Ends the process, from a thread: the main one may be held up by anything."""
        with contextlib.suppress(Exception):
            self._write_run_json_of_none("stopped")
        # The last words, and the cursor that a live view has hidden.
        os.write(2, (b"\x1b[?25h" if os.isatty(2) else b"") + b"aborted: the same command continues\n")
        os._exit(130)

    # Before a request is sent

    def _check_before(self, earlier: dict[str, Any]) -> None:
        if not self.options.overwrite and self._files_of(earlier):
            target = None if self.after_growth else self.rounds.target if self.rounds else 0
            refuse_to_overwrite(self.recipe.place, earlier, self.identity, self.options.limit, target)
        check_before(self.recipe.executor, [self.work, self.recipe.cache_dir])
        first = self.steps[0].number
        if first > 1 and not (self.output / (before := self.recipe.steps[first - 2].file)).is_file():
            raise RecipeError(
                f"step {first} '{self.steps[0].name}' reads {self.recipe.place}/{before}, which is not there: "
                f"run step {first - 1} '{self.recipe.steps[first - 2].name}' first"
            )
        for name in self._models_used():
            if missing := self.recipe.models[name].missing_key():
                raise RecipeError(f"model '{name}' takes its key from the environment variable {missing}: export it")
        self.servers = server_specs(self.recipe.models, self._models_used(), self.recipe.path.resolve().parent)

    def _start_afresh(self, earlier: dict[str, Any]) -> None:
        completions = delete_all(self.recipe.cache_dir)
        self.mirror.forget_completions()
        files = self._files_of(earlier)
        for path in files:
            path.unlink()
        forget_shards(self.output / self.recipe.steps[-1].file)
        if self.steps[0].number == 1:
            (self.output / "run.json").unlink(missing_ok=True)
        self._note(
            f"--no-resume: deleted {completions} completions in {self.recipe.cache_dir} and {len(files)} step files "
            f"in {self.recipe.place}"
        )

    def _fold(self) -> None:
        """The parts of the cache that tasks have written, now or before this run was killed, into the whole."""
        for said in fold(self.recipe.cache_dir):
            self._note(said)

    def _note(self, text: str | None) -> None:
        if text and self.options.listener:
            self.options.listener.note(text)

    def _files_of(self, earlier: dict[str, Any]) -> list[Path]:
        """The step files of an earlier run that this one would replace or outdate, as they are there now."""
        first = self.steps[0].number
        steps = [step for step in earlier.get("steps", []) if step["number"] >= first]
        names = [
            name for step in steps for name in (step["file"], f"dropped/{step['file']}", f"discarded/{step['file']}")
        ]
        return [self.output / name for name in names if (self.output / name).is_file()]

    def _models_used(self) -> list[str]:
        blocks = [spec.build() for step in self.steps for spec in step.blocks]
        return sorted({block.model for block in blocks if hasattr(block, "model")})

    # The run itself

    def _execute(self, urls: dict[str, str], paid: Meter) -> bool:
        settings = RunSettings(
            work_dir=str(self.work), cache_dir=str(self.recipe.cache_dir.absolute()),
            cache_per_task=self.recipe.cache_per_task, seed=self.recipe.seed, models=self.recipe.models,
            base_urls=urls, sandbox=self.recipe.sandbox, flush_interval=self.recipe.flush_interval,
            stop_file=str(self.work / "stop.json"), budget=self.recipe.budget, began=self.began, paid=paid,
            servers=self.servers,
            served_in=str(self.work / "servers") if self.recipe.executor.type == "local" else None,
        )  # fmt: skip
        stages = stages_of(self._blocks(), self.recipe.executor, self.work)
        return execute(stages, self.recipe.executor, settings, self.work.parent / "logs")

    def _blocks(self) -> Iterator[Block]:
        """Fresh blocks in order, each knowing its place, a file behind every step."""
        first = self.steps[0].number
        steps = self.rounds.grower.steps(self.steps, self.rounds.size) if self.rounds else self.steps
        for step in steps:
            chain = [spec.build() for spec in step.blocks]
            if step.number == first > 1:
                chain.insert(0, ReadStep(str(self.output / self.recipe.steps[first - 2].file)))
            if self.options.limit is not None and step.number == 1:
                for block in chain:
                    if isinstance(block, Reader) and self.options.limit_reading:
                        block.limit = self.options.limit
                # Before what the step writes beside its records, so that this is limited too.
                writers = sum(1 for _ in itertools.takewhile(lambda block: block.kind == "writer", reversed(chain)))
                chain.insert(len(chain) - writers, Limit(self.options.limit))
            for position, block in enumerate([*chain, StepFile(step.file)]):
                block.step, block.position, block.order = step.name, position, step.number
                yield block

    # After the last record

    def _further(self, counts: list[StepCounts]) -> set[str]:
        """The steps of which an earlier run of the same has finished more: this one leaves them as they are."""
        same = (RunState.earlier(self.output) or {}).get("identity") == self.identity
        return further(self.output, counts) if same and not self.replacing else set()

    def _write_run_json_of_none(self, state: str, failure: str = "") -> None:
        """Of a run that ends without putting any file in place."""
        counts = RunState(self.work, self.steps).read()
        self.stay = self._further(counts)
        self.summary.write(state, counts, self.stay, failure)
