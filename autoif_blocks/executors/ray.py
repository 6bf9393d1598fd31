"""Tasks on a Ray cluster, by datatrove's own executor."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from datatrove.executor import ray as datatrove_ray
from datatrove.executor.base import PipelineExecutor
from datatrove.executor.ray import RankWorker, RayPipelineExecutor

from ..errors import RecipeError, StopRun
from ..steps import ExecutorConfig
from ..stopping import StopFlag
from ..workers import run_in_workers
from .tasks import Away, StageRun, check_ended, stderr_in


@contextlib.contextmanager
def cluster(config: ExecutorConfig) -> Iterator[Callable[[StageRun], None]]:
    """Connects to a cluster, or starts one on this machine that ends with the block; gives what runs a stage there.

    Raises:
        StopRun: there is no cluster at the address.
        RecipeError: no machine of the cluster has what a task asks for.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
        address = config.address or os.environ.get("RAY_ADDRESS", "")
        try:
            if found := re.fullmatch(r"([^/]+):(\d+)", address):  # Ray itself would try for minutes
                socket.create_connection((found[1], int(found[2])), timeout=10).close()
            ray.init(config.address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:
            raise StopRun(f"cannot use Ray at {address or 'this machine'}: {type(error).__name__}: {error}") from error
    try:
        memory = config.cpus_per_task * config.mem_per_cpu_gb << 30
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= config.cpus_per_task and node.get("memory", 0) >= memory for node in nodes):
            raise RecipeError(
                f"executor: no machine of the Ray cluster has {config.cpus_per_task} CPUs and {memory >> 30} GB for a "
                "task: lower cpus_per_task or mem_per_cpu_gb"
            )
        yield lambda stage: _run(stage, config)
    finally:
        if ours:
            ray.shutdown()


def _run(stage: StageRun, config: ExecutorConfig) -> None:
    with stderr_in(stage.logs / "run.stderr.log", restore=True):
        executor = _Ray(
            pipeline=stage.pipeline, tasks=stage.tasks, workers=stage.at_once, skip_completed=False,
            logging_dir=str(stage.logs), cpus_per_task=config.cpus_per_task, mem_per_cpu_gb=config.mem_per_cpu_gb,
            gpus_per_task=config.gpus_per_task,
            ray_remote_kwargs={"runtime_env": {"env_vars": {"PYTHONPATH": stage.python_path}}},
        )  # fmt: skip
        executor.place(stage)
        with mock.patch.object(datatrove_ray, "RankWorker", _Actor):
            executor.run()
    check_ended(stage, f"its machines or processes were lost again and again: see {stage.logs}")


class _Actor(RankWorker):  # type: ignore[misc]
    """datatrove's actor forks each task from its own many threads, and waits for ever for a fork that was killed.
    Here tasks are processes of their own, whose end is noticed, and which end with the actor."""

    def run_for_rank(self, executor_ref: _Ray, ranks: list[int], node_ips: list[str], node_idx: int) -> None:
        os.environ["RAY_NODELIST"], os.environ["RAY_NODEID"] = ",".join(node_ips), str(node_idx)
        for rank in ranks:
            with executor_ref.telling(rank):
                run_in_workers(executor_ref.run_task, [rank], 1, StopFlag(executor_ref.stop_file))


class _Ray(Away, RayPipelineExecutor):  # type: ignore[misc]
    def run_task(self, rank: int) -> None:
        with stderr_in(Path(self.logging_dir.path) / f"task_{rank:05d}.stderr.log"):
            # Not Ray's own variant: it collects logs in a folder of /tmp that all runs and users of a machine share.
            PipelineExecutor._run_for_rank(self, rank)
