"""From blocks to datatrove's executors: stages, each of them run by as many tasks as the recipe says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..context import RunContext, RunSettings
from ..steps import ExecutorConfig
from ..stopping import stop_flag
from .local import run_locally
from .stages import RunScope, Stage, folder_of, stages_of, unfinished
from .tasks import StageRun

__all__ = ["execute", "stages_of"]


def execute(stages: list[Stage], config: ExecutorConfig, settings: RunSettings, logs: Path) -> bool:
    """Runs the stages one after another, each as a datatrove pipeline; their parts are left below `settings.work_dir`.

    Returns:
        Whether all records have come to their end. If not, the run was told to stop.

    Raises:
        StopRun: the run cannot go on.
    """
    work = Path(settings.work_dir)
    flag = stop_flag(settings.stop_file or work / "stop.json")
    runs: list[StageRun] = []
    for number, stage in enumerate(stages):
        folder, at_once = folder_of(work, number), min(stage.tasks, config.workers)
        models = {name: model.share(at_once) for name, model in settings.models.items()}
        ours = replace(settings, work_dir=str(folder), stop_file=str(flag.path), models=models)
        context = RunContext(ours)
        for block in stage.pipeline:
            block.bind(block.step, block.position, context)
        context.announce()
        pipeline = [*stage.pipeline, RunScope(context, _keys(stage, settings))]
        runs.append(StageRun(number, pipeline, stage.tasks, at_once, folder, logs, flag))
    launch: Callable[[StageRun], None] = run_locally
    for run in runs:
        launch(run)
        if unfinished(run.folder, run.tasks) or (run is not runs[-1] and flag.look() is not None):
            return False
    return True


def _keys(stage: Stage, settings: RunSettings) -> list[str]:
    """The environment variables that hold the keys of the models that a stage asks, as far as they are set here."""
    used = [settings.models[block.model] for block in stage.pipeline if hasattr(block, "model")]
    return sorted({name for model in used if (name := model.key_name) and name in os.environ})
