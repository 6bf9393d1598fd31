"""From blocks to datatrove's executors: stages, each of them run by as many tasks as the recipe says."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ..context import RunContext, RunSettings
from ..errors import AutoIFError, RecipeError, StopRun, disk_trouble
from ..outputs import write_json
from ..state import STAGES
from ..steps import ExecutorConfig
from ..stopping import stop_flag
from .local import run_locally
from .ray import cluster
from .slurm import refuse_beside_jobs, run_on_slurm
from .stages import RunScope, Stage, carried, folder_of, stages_of
from .tasks import StageRun, unfinished

__all__ = ["Stage", "check_before", "execute", "stages_of"]


def check_before(config: ExecutorConfig, folders: Iterable[Path]) -> None:
    """Looks for what a run will need, before anything is begun or deleted in the `folders` that it writes into.

    Raises:
        RecipeError: it is not installed.
        StopRun: jobs of an earlier run would write beside this one.
    """
    if config.type == "ray" and find_spec("ray") is None:
        raise RecipeError("executor: type ray needs the package ray: pip install 'autoif-blocks[ray]'")
    if config.type == "slurm" and (missing := [c for c in ("sbatch", "squeue", "scancel") if not shutil.which(c)]):
        raise RecipeError(f"executor: type slurm needs the command {missing[0]}: run on a machine that submits jobs")
    for folder in folders:
        refuse_beside_jobs(folder)


def execute(stages: list[Stage], config: ExecutorConfig, settings: RunSettings, logs: Path) -> bool:
    """Runs the stages one after another, each as a datatrove pipeline; their parts are left below `settings.work_dir`.

    Returns:
        Whether all records have come to their end. If not, the run was told to stop.

    Raises:
        StopRun: the run cannot go on.
        RecipeError: the cluster does not take what the recipe asks of it.
    """
    work = Path(settings.work_dir)
    flag = stop_flag(settings.stop_file or work / "stop.json")
    away = config.type != "local"
    code = carried(stages, [server.folder for server in settings.servers.values()], work / "code") if away else []
    runs: list[StageRun] = []
    for number, stage in enumerate(stages):
        folder, at_once = folder_of(work, number), min(stage.tasks, config.workers)
        models = {name: config.share(model, stage.tasks) for name, model in settings.models.items()}
        place = logs / folder.name if away else logs
        ours = replace(
            settings, work_dir=str(folder), stop_file=str(flag.path), models=models, logs=str(place.absolute())
        )
        context = RunContext(ours)
        for block in stage.pipeline:
            block.bind(block.step, block.position, context)
        context.announce()
        pipeline = [*stage.pipeline, RunScope(context, _keys(stage, settings))]
        runs.append(StageRun(number, pipeline, stage.tasks, at_once, folder, place, flag, tuple(code)))
    steps = {block.step: block.order for stage in stages for block in stage.pipeline if block.step}
    tasks = [run.tasks for run in runs]
    write_json(work / STAGES, {"steps": list(steps.items()), "tasks": tasks, "executor": config.type})
    try:
        return _run(runs, config, [work, Path(settings.cache_dir or work)])
    except AutoIFError:
        raise
    except SystemExit as error:
        raise StopRun(f"a block called for the end of the program: {error!r} ({logs} has the traceback)") from error
    except Exception as error:
        unforeseen = StopRun(f"{type(error).__name__}: {error} (not foreseen: {logs} has the traceback)")
        raise disk_trouble(error, work.parent) or unforeseen from error


def _run(runs: list[StageRun], config: ExecutorConfig, folders: list[Path]) -> bool:
    if config.type == "slurm":
        run_on_slurm(runs, config, folders)
        return not any(unfinished(run.folder, run.tasks) for run in runs)
    with contextlib.ExitStack() as stack:
        launch: Callable[[StageRun], None] = run_locally
        if config.type == "ray":
            launch = stack.enter_context(cluster(config))
        for run in runs:
            launch(run)
            if unfinished(run.folder, run.tasks) or (run is not runs[-1] and run.flag.look() is not None):
                return False
    return True


def _keys(stage: Stage, settings: RunSettings) -> list[str]:
    """The environment variables that hold the keys of the models that a stage asks, as far as they are set here."""
    used = [settings.models[block.model] for block in stage.pipeline if hasattr(block, "model")]
    return sorted({name for model in used if (name := model.key_name) and name in os.environ})
