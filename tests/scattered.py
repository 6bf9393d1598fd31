"""What the tests of several executors share: a small recipe of three stages, run as its user would."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import AUTOIF, SMALL, tree
from running import teacher

SECRET = "sk-one-that-must-not-be-found-anywhere"
RECIPE = """
output_dir: out
executor: {{type: {type}, tasks: 3, workers: 3{more}}}
flush_interval: 0.2
models:
  teacher: {{base_url: '{url}', model: simulated-teacher, max_concurrency: 6}}
steps:
  - {{name: given, block: read_lines, path: in.txt, field: query}}
  - {{name: first, block: respond, n: 4, prompt: 'Tell me about {{{{ query }}}}.'}}
  - {{name: unlike, block: dedup, 'on': [response]}}
  - {{name: second, block: respond, prompt: 'Say it again: {{{{ response }}}}'}}
  - {{name: own, block: 'mine.py:Own'}}
"""
OWN = """
from helper import LONG
from autoif_blocks import Filter
class Own(Filter):
    reads = ("response",)
    def reject(self, record):
        return "long" if len(record["response"]) > LONG else None
"""


def autoif(*arguments: object, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoif_blocks", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300)


def ten_steps(env: dict[str, str], folder: Path, executor: str) -> subprocess.CompletedProcess[str]:
    """Runs the ten steps twice, with a model that wants a key: here, into `local`, and by the executor, into `out`."""
    with teacher("--api-key", SECRET) as url:
        env = {**env, "AUTOIF_API_KEY": SECRET}
        arguments = ["run", AUTOIF, *SMALL, "--base-url", url]
        assert autoif(*arguments, "--output-dir", "local", env=env, cwd=folder).returncode == 0
        done = autoif(*arguments, "--output-dir", "out", "--set", executor, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def start(folder: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "autoif_blocks", "run", "recipe.yaml"]
    return subprocess.Popen(command, env=env, cwd=folder, stderr=subprocess.PIPE, text=True)


def project(folder: Path, url: str, kind: str, more: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "in.txt").write_text("".join(f"subject {number}\n" for number in range(16)))
    (folder / "mine.py").write_text(OWN)
    (folder / "helper.py").write_text("LONG = 400\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(url=url, type=kind, more=more))
    return folder


@functools.cache
def whole() -> dict[str, bytes]:
    """The result files of the small recipe, run on this machine."""
    with tempfile.TemporaryDirectory() as folder, teacher() as url:
        local = project(Path(folder), url, "local", "")
        done = autoif("run", "recipe.yaml", "--quiet", env=dict(os.environ), cwd=local)
        assert done.returncode == 0, done.stderr
        return tree(local / "out")


def has(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
