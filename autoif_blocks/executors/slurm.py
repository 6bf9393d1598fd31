"""Tasks as array jobs of a Slurm cluster, by datatrove's own executor.

All stages are handed in at once, each depending on the one before. The run then waits, and watches: what the tasks do
it reads from their files, whether they are still there it hears from `squeue`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from datatrove.executor.slurm import SlurmPipelineExecutor

from ..errors import RecipeError, StopRun
from ..outputs import write_json
from ..state import read_object
from ..steps import ExecutorConfig
from ..stopping import GRACE, StopFlag
from .tasks import Away, StageRun, check_ended, stderr_in, unfinished

_LOOK = 1.0  # seconds between two looks at the queue
_PATIENCE = 600.0  # seconds without an answer from Slurm
_KILLED = 45.0  # seconds that a cancelled job may take to be gone
_LATE = 10.0  # seconds that a file may take from the machine of a task to this one
_JOBS = "slurm.json"
# Why Slurm lets a job wait for ever that it has taken.
_NEVER = {
    "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "AccountNotAllowed",
    "QOSNotAllowed",
}  # fmt: skip


def run_on_slurm(stages: Sequence[StageRun], config: ExecutorConfig, folders: Iterable[Path]) -> None:
    """Hands in the stages and waits for the last. The jobs are noted in the `folders` that they write into, for
    `refuse_beside_jobs`.

    Raises:
        RecipeError: Slurm refuses the jobs.
        StopRun: a task failed or was lost, or Slurm cannot be reached.
    """
    output = stages[0].folder.parent.parent.name
    token = f"{re.sub('[^A-Za-z0-9_.]', '-', output)}-{uuid4().hex[:8]}"
    executors: list[_Slurm] = []
    for stage in stages:
        executor = _Slurm(
            pipeline=stage.pipeline, tasks=stage.tasks, time=config.time, partition=config.partition,
            cpus_per_task=config.cpus_per_task, mem_per_cpu_gb=config.mem_per_cpu_gb,
            gpus_per_task=config.gpus_per_task, workers=stage.at_once,
            job_name=f"autoif-{token}-{stage.number}", qos=config.qos, env_command=_environment(config, stage),
            sbatch_args=config.sbatch_args, max_array_size=config.max_array_size, job_id_retriever=_number_in,
            depends=executors[-1] if executors else None, logging_dir=str(stage.logs), skip_completed=False,
        )  # fmt: skip
        executor.place(stage)
        executors.append(executor)
    names = [executor.job_name for executor in executors]
    with stderr_in(stages[0].logs.parent / "run.stderr.log", restore=True):
        executors[0].refused()
        for folder in folders:
            write_json(folder / _JOBS, {"jobs": names})
        try:
            executors[-1].launch_job()
            _wait(names, stages[0].flag)
        except subprocess.CalledProcessError as error:
            raise StopRun(f"sbatch failed with exit code {error.returncode}; what it said stands above") from error
        finally:
            _cancel(names)  # all that is left: nothing, if all went well
    until = time.monotonic() + _KILLED
    while _queue(names) and time.monotonic() < until:
        time.sleep(_LOOK)
    until = time.monotonic() + _LATE
    for stage in stages:
        while unfinished(stage.folder, stage.tasks) and stage.flag.look() is None and time.monotonic() < until:
            if list(stage.folder.glob("*.failure.json")):
                break
            time.sleep(0.2)
        check_ended(stage, f"cancelled, out of time or memory, or its machine lost: {stage.logs}/slurm_logs may tell")


def refuse_beside_jobs(folder: Path) -> None:
    """Keeps a run out of a folder where jobs may write that an earlier one, killed meanwhile, has handed in.

    Raises:
        StopRun: they are still there.
    """
    names = (read_object(folder / _JOBS) or {}).get("jobs")
    jobs = _queue(names) if names and shutil.which("squeue") else {}
    if jobs is None:
        raise StopRun(
            "Slurm does not say whether jobs of an earlier command are still there: try again when it answers, "
            f"or delete {folder / _JOBS} if you know that they are not"
        )
    if jobs:
        ids = " ".join(sorted({job.split("_")[0] for job in jobs}))
        raise StopRun(
            f"jobs of an earlier command are still in Slurm's queue: wait for them, or `scancel {ids}`; "
            "then the same command continues with what they have paid for"
        )


class _Slurm(Away, SlurmPipelineExecutor):  # type: ignore[misc]
    def refused(self) -> None:
        """Raises RecipeError if Slurm would not take the job, in its own words."""
        script = self.get_launch_file_contents(self.get_sbatch_args(), "true")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(script)
            file.flush()
            tried = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True)
        if tried.returncode:
            said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
            asked = f"partition {self.partition}, time {self.time}, {len(self._sbatch_args)} sbatch_args"
            raise RecipeError(f"executor: Slurm refuses the job ({asked}): {said[-1].split('failure: ')[-1]}")

    def launch_merge_stats(self) -> None:
        """Not wanted: a run has counts of its own."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        # Cancelled or out of time, a task has some seconds to keep what it has paid for.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with self.telling(rank):
            return super()._run_for_rank(rank, local_rank, node_rank)


def _environment(config: ExecutorConfig, stage: StageRun) -> str:
    """The head of a job: this Python, whatever the shell of a compute node would find."""
    path = f"{shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    return "\n".join(
        filter(None, [config.env_command, f"export PATH={path}", f"export PYTHONPATH={shlex.quote(stage.python_path)}"])
    )


def _number_in(said: str) -> str:
    found = re.search(r"\d+", said)
    if found is None:
        raise StopRun(f"sbatch named no job: {said.strip()}")
    return found[0]


# The queue


def _queue(names: Sequence[str]) -> dict[str, str] | None:
    """The jobs of these names that are waiting or running, each with what it waits for; None if Slurm does not say."""
    command = ["squeue", "--noheader", "--format=%i|%r", f"--name={','.join(names)}"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        return None
    return dict(line.split("|", 1) for line in asked.stdout.splitlines() if "|" in line)


def _cancel(names: Sequence[str], *more: str) -> None:
    for name in names:
        subprocess.run(["scancel", *more, f"--name={name}"], capture_output=True)


def _wait(names: Sequence[str], flag: StopFlag) -> None:
    """Until no job is left. A stop lets those that run end by themselves, unless they take much longer."""
    waiting, answered = True, time.monotonic()
    while (jobs := _queue(names)) is None or jobs:  # a controller that does not answer may come back
        answered = answered if jobs is None else time.monotonic()
        if time.monotonic() - answered > _PATIENCE:
            raise StopRun("Slurm has not answered for ten minutes: once it does, the same command continues")
        stop = flag.look()
        if stop is not None:
            if waiting:
                _cancel(names, "--state=PENDING")
                waiting = False
            if time.time() > stop.deadline + GRACE:
                return
        for job, reason in (jobs or {}).items():
            if reason == "DependencyNeverSatisfied":
                subprocess.run(["scancel", job.split("_")[0]], capture_output=True)
            elif reason in _NEVER:
                raise RecipeError(f"executor: Slurm will never start job {job}: {reason}")
        time.sleep(_LOOK)
