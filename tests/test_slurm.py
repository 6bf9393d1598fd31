"""The same recipe on a real Slurm: `.ci/run` installs its packages, and these tests start a cluster of one node."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import slurm_cluster
from conftest import rows, tree, wait_for_completions
from running import counts_add_up, run_json, teacher
from scattered import SECRET, autoif, has, project, start, ten_steps, whole
from test_serving import MARK, SERVERS, left, marked

pytestmark = [pytest.mark.heavy, pytest.mark.slurm]

CLUSTER = ", partition: main, time: '10'"
RESHARD = ", reshard_after: [second]"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    if said := slurm_cluster.missing():
        pytest.fail(said) if os.environ.get("AUTOIF_SLURM") == "required" else pytest.skip(said)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster.slurm(Path(folder)) as environment:
        yield environment


@pytest.fixture(autouse=True)
def tidy(cluster: dict[str, str]) -> Iterator[None]:
    """A test that fails leaves the next one an empty queue."""
    yield
    subprocess.run(["scancel", "--partition=main"], env=cluster, check=True)


def queue(env: dict[str, str]) -> list[str]:
    """Jobs with their array index and what they wait for: `7_1|None`."""
    return subprocess.check_output(["squeue", "-h", "-r", "-o", "%i|%r"], env=env, text=True).split()


def jobs(env: dict[str, str]) -> list[dict[str, str]]:
    """All jobs that the controller remembers."""
    listed = subprocess.check_output(["scontrol", "-o", "show", "jobs"], env=env, text=True).splitlines()
    return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in listed if line]


@contextlib.contextmanager
def under_way(env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in the middle of its first stage, with a model that takes its time."""
    with teacher("--latency", "1.5", "--latency-sigma", "0") as url:
        run = start(project(folder, url, "slurm", CLUSTER + RESHARD), env)
        wait_for_completions(folder / "out", 12)
        yield run


def continued(env: dict[str, str], folder: Path) -> dict[str, bytes]:
    """What the same command makes of what was left there."""
    with teacher() as url:
        done = autoif("run", "recipe.yaml", env=env, cwd=project(folder, url, "slurm", CLUSTER + RESHARD))
    assert done.returncode == 0, done.stderr
    return tree(folder / "out")


def wait_until(done: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_ten_steps_give_the_same_bytes_and_no_key_leaves_the_environment(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    ten_steps(cluster, tmp_path, "executor={type: slurm, tasks: 4, workers: 2, partition: main, time: '10'}")
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    counts_add_up(tmp_path / "out")
    assert list((tmp_path / "out" / "logs").rglob("executor.pik"))
    assert list((tmp_path / "out" / "logs").rglob("launch_script.slurm"))
    assert has(tmp_path, SECRET) == []
    assert queue(cluster) == []
    mine = [job for job in jobs(cluster) if job["JobName"].startswith("autoif-")]
    first, second = ([job for job in mine if job["JobName"].endswith(end)] for end in ("-0", "-1"))
    assert (len(first), len(second)) == (1, 4)
    assert {job["JobState"] for job in mine} == {"COMPLETED"}
    assert max(job["EndTime"] for job in first) <= min(job["StartTime"] for job in second)


def test_a_cancelled_task_is_told_and_the_same_command_finishes(cluster: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    with under_way(cluster, folder) as run:
        victim = [job.split("|")[0] for job in queue(cluster) if job.endswith("|None")][-1]
        subprocess.run(["scancel", victim], env=cluster, check=True)
        _, said = run.communicate(timeout=90)
    assert run.returncode == 1
    assert f"task {victim.split('_')[1]} of stage 0 did not come to an end" in said
    assert "run again to continue" in said
    assert "Traceback" not in said
    assert queue(cluster) == []  # those that depended on it are gone
    assert run_json(folder / "out")["state"] == "failed"
    assert continued(cluster, folder) == whole()
    totals, step = run_json(folder / "out")["totals"], run_json(folder / "out")["steps"][1]
    assert step["hits"] >= 12  # what was paid for was kept
    assert step["hits"] + step["completions"] == 64
    assert totals["completions"] < 64 + len(rows(folder / "out" / "unlike.jsonl"))


@pytest.mark.long
def test_the_server_of_a_cancelled_task_ends_with_it(cluster: dict[str, str], tmp_path: Path) -> None:
    word = uuid4().hex
    folder, env = project(tmp_path / "project", "", "slurm", CLUSTER), {**cluster, MARK: word}
    shutil.copy(SERVERS, folder / "our_servers.py")  # which travels with the job
    path = folder / "recipe.yaml"
    text = path.read_text().replace("base_url: ''", "serve: our_servers.py:Teacher, serve_options: {latency: 0.7}")
    path.write_text(text)
    run = start(folder, env)
    wait_for_completions(folder / "out", 12)
    assert len(marked(word, "autoif_blocks.teacher")) == 3
    victim = next(job.split("|")[0] for job in queue(cluster) if "_1|" in job and job.endswith("|None"))
    subprocess.run(["scancel", victim], env=cluster, check=True)
    _, said = run.communicate(timeout=90)
    assert run.returncode == 1, said
    assert left(word) == []
    path.write_text(text.replace("latency: 0.7", "latency: 0.01"))
    done = autoif("run", "recipe.yaml", env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert tree(folder / "out") == whole()
    assert run_json(folder / "out")["steps"][1]["hits"] >= 12
    assert left(word) == []


def test_ctrl_c_ends_the_jobs_gently_and_the_same_command_finishes(cluster: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    with under_way(cluster, folder) as run:
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command continues" in said
    assert queue(cluster) == []
    assert run_json(folder / "out")["state"] == "stopped"
    counts_add_up(folder / "out")
    assert continued(cluster, folder) == whole()


def test_jobs_of_a_killed_run_keep_the_next_one_away_until_they_are_gone(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    with under_way(cluster, folder) as run:
        run.kill()
        run.communicate()
        refused = autoif("run", "recipe.yaml", env=cluster, cwd=folder)
        assert refused.returncode == 1
        assert "jobs of an earlier command are still in Slurm's queue" in refused.stderr
        told = refused.stderr.split("`scancel ")[1].split("`")[0].split()
        subprocess.run(["scancel", *told], env=cluster, check=True)
        wait_until(lambda: not queue(cluster))
    assert continued(cluster, folder) == whole()
    assert run_json(folder / "out")["steps"][1]["hits"] >= 12


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ", partition: nowhere, time: '10'",
            "the job (partition nowhere, time 10, 0 sbatch_args): Invalid parti",
        ),
        (", partition: main, time: '10', sbatch_args: {nodelist: mars}", "Invalid node name"),
        (", partition: main, time: soon", "refuses the job (partition main, time soon"),
        (", partition: main, time: '999'", "PartitionTimeLimit"),
    ],
)
def test_what_slurm_will_not_do_is_told_in_a_sentence(
    cluster: dict[str, str], tmp_path: Path, more: str, said: str
) -> None:
    folder = project(tmp_path, "http://127.0.0.1:9/v1", "slurm", more)
    done = autoif("run", "recipe.yaml", env=cluster, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "executor: Slurm " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert queue(cluster) == []


def test_a_failure_in_a_job_is_told_as_if_it_were_here(cluster: dict[str, str], tmp_path: Path) -> None:
    with teacher("--api-key", SECRET) as url:
        folder = project(tmp_path, url, "slurm", CLUSTER)
        done = autoif("run", "recipe.yaml", env=cluster, cwd=folder)
    assert done.returncode == 3, done.stderr
    assert json.loads((folder / "out" / "run.json").read_text())["state"] == "failed"
    assert queue(cluster) == []
