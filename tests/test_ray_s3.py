"""Runs on a Ray cluster into a bucket: tasks work in a folder that they share, the command sends what they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import AUTOIF, SMALL, tree
from test_ray import RAY, env
from test_s3 import S3, line, s3

__all__ = ["env", "line", "s3"]  # fixtures

pytestmark = [pytest.mark.heavy, pytest.mark.ray, pytest.mark.s3]


def test_the_ten_steps_on_ray_into_s3_are_those_of_a_local_run(env: dict[str, str], s3: S3, tmp_path: Path) -> None:
    assert s3.autoif("a", "run", AUTOIF, *SMALL, "--output-dir", tmp_path / "out").returncode == 0

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
