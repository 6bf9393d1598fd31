"""The same recipe on a real Ray cluster of this machine: `.ci/run` installs the extra [ray]."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import AUTOIF, SMALL, children, tree, wait_for_completions
from running import counts_add_up, members, run_json, teacher
from scattered import SECRET, autoif, has, project, start, ten_steps, whole
from test_s3 import S3, line, s3
from test_serving import MARK, SERVERS, left

__all__ = ["line", "s3"]  # fixtures

pytestmark = [pytest.mark.heavy, pytest.mark.ray]

RESHARD = ", reshard_after: [second]"
RAY = "executor={type: ray, tasks: 4, workers: 2}"


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """The environment of a run whose Ray keeps its own files in a folder of their own."""
    if find_spec("ray") is None:
        said = "ray not installed: pip install -e '.[ray]'"
        pytest.fail(said) if os.environ.get("AUTOIF_RAY") == "required" else pytest.skip(said)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield {**os.environ, "RAY_TMPDIR": folder}


def processes(title: str) -> list[int]:
    """Those whose command line begins so."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cmdline").read_text().startswith(title):
                found.append(int(path.name))
    return found


def test_the_ten_steps_give_the_same_bytes_and_no_key_leaves_the_environment(
    env: dict[str, str], tmp_path: Path
) -> None:
    done = ten_steps(env, tmp_path, RAY)
    assert "Traceback" not in done.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    counts_add_up(tmp_path / "out")
    assert len(list((tmp_path / "out" / "logs" / "stage-1").glob("task_*"))) == 4
    assert has(tmp_path, SECRET) == []
    assert list(Path(env["RAY_TMPDIR"]).rglob("*.log"))
    assert has(Path(env["RAY_TMPDIR"]), SECRET) == []


@pytest.mark.long
def test_each_task_starts_a_server_of_its_own_that_ends_with_it(env: dict[str, str], tmp_path: Path) -> None:
    word = uuid4().hex
    env = {**env, MARK: word}
    folder = project(tmp_path / "project", "", "ray", "")
    shutil.copy(SERVERS, folder / "our_servers.py")  # which travels with the job
    text = (folder / "recipe.yaml").read_text().replace("base_url: ''", "serve: our_servers.py:Teacher")
    (folder / "recipe.yaml").write_text(text)
    done = autoif("run", "recipe.yaml", env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert tree(folder / "out") == whole()
    counts_add_up(folder / "out")
    logs = sorted((folder / "out" / "logs").glob("stage-*/teacher.server.*.log"))
    assert [path.name[15:20] for path in logs] == [f"{rank:05d}" for rank in range(3)] * 2
    assert left(word) == []


def an_actor() -> int:
    return processes("ray::_Actor.run_for_rank")[0]


def a_task() -> int:
    found = [pid for actor in processes("ray::_Actor.run_for_rank") for pid in children(actor)]
    return next(pid for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize(("victim", "code"), [(an_actor, 0), pytest.param(a_task, 1, marks=pytest.mark.long)])
def test_a_process_killed_in_the_middle_loses_nothing(
    env: dict[str, str], tmp_path: Path, victim: Callable[[], int], code: int
) -> None:
    with teacher("--latency", "0.7", "--latency-sigma", "0") as url:
        folder = project(tmp_path / "project", url, "ray", RESHARD)
        run = start(folder, env)
        wait_for_completions(folder / "out", 24)
        os.kill(victim(), signal.SIGKILL)
        _, said = run.communicate(timeout=240)
    assert run.returncode == code, said
    if code:
        assert "was killed by SIGKILL" in said
        assert "run again to continue" in said
        assert run_json(folder / "out")["state"] == "failed"
        with teacher() as url:
            project(folder, url, "ray", RESHARD)
            done = autoif("run", "recipe.yaml", env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert tree(folder / "out") == whole()
    counts_add_up(folder / "out")
    step = run_json(folder / "out")["steps"][1]
    assert step["hits"] > 0  # replayed, whether by the same command or by the next


def test_ctrl_c_ends_a_run_gently_and_leaves_no_process(env: dict[str, str], tmp_path: Path) -> None:
    with teacher("--latency", "0.7", "--latency-sigma", "0") as url:
        folder = project(tmp_path, url, "ray", "")
        command = [sys.executable, "-m", "autoif_blocks", "run", "recipe.yaml"]
        run = subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)
        wait_for_completions(folder / "out", 12)
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "the same command continues" in said
    assert run_json(folder / "out")["state"] == "stopped"
    counts_add_up(folder / "out")
    deadline = time.monotonic() + 20
    while left := members(run.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (", cpus_per_task: 1000", 2, "no machine of the Ray cluster has 1000 CPUs"),
        (", address: '127.0.0.1:9'", 1, "cannot use Ray at 127.0.0.1:9"),
    ],
)
def test_a_cluster_that_will_not_do_is_told_in_a_sentence(
    env: dict[str, str], tmp_path: Path, more: str, code: int, said: str
) -> None:
    folder = project(tmp_path, "http://127.0.0.1:9/v1", "ray", more)
    done = autoif("run", "recipe.yaml", env=env, cwd=folder)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.s3
def test_the_ten_steps_on_ray_into_s3_are_those_of_a_local_run(env: dict[str, str], s3: S3, tmp_path: Path) -> None:
    assert s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", tmp_path / "out").returncode == 0

    # Tasks work in a folder that they share, the command sends what they leave.
    def on_ray(shared: str) -> None:
        work_dir = ("--set", f"work_dir={tmp_path / shared}")
        ray = {"RAY_TMPDIR": env["RAY_TMPDIR"]}
        done = s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", s3.url, "--set", RAY, *work_dir, **ray)
        assert done.returncode == 0, done.stderr
        assert s3.results() == tree(tmp_path / "out")

    on_ray("one")
    assert s3.run_json()["totals"]["requests"] > 0
    assert "cache/completions.sqlite" in s3.objects()
    assert not [name for name in s3.objects() if name.startswith("cache/tasks/")]
    assert len([name for name in s3.objects() if name.startswith("logs/stage-1/task_")]) == 4
    on_ray("another")  # where nothing is yet
    assert s3.run_json()["totals"]["requests"] == 0
    refused = s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", s3.url, "--set", RAY)
    assert refused.returncode == 2
    assert "add work_dir, a folder that all machines of the cluster share" in refused.stderr
