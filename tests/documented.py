"""What the documentation says to do, done: by a reader who follows a page from top to bottom, in a checkout of his own.

Nothing is changed in a command but the address of a server, which the simulated teacher plays. The checkout has fewer
seeds and asks for less, so that a page takes seconds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from autoif_blocks import cli
from autoif_blocks.errors import RecipeError
from autoif_blocks.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SERVER = re.compile(r"https?://(?:localhost|api\.openai\.com|gpu\d)[:/\d]*/v1")
# What sets up, builds and tests; `.ci/run` does it.
BY_CI = (
    "pip ",
    "pytest",
    "git ",
    "mkdocs ",
    "pre-commit ",
    "ruff ",
    "mypy",
    "python tests/",
    "python docs/",
    "python3 -m venv",
    ". ",
)
_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def snippets(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of (language, what stands in the fence), as they follow one another."""
    for indent, language, inside in _FENCED.findall(text):
        yield language, re.sub(rf"^{indent}", "", inside, flags=re.MULTILINE)


def of(page: Path, language: str) -> list[str]:
    return [inside for found, inside in snippets(page.read_text(encoding="utf-8")) if found == language]


def commands(inside: str) -> list[str]:
    """The commands of a shell snippet, without its comments."""
    lines = [re.split(r"(?:^|\s\s)#", line)[0] for line in inside.splitlines()]
    return [part for line in lines for part in (part.strip() for part in line.split("&&")) if part]


def checkout(folder: Path) -> Path:
    """The recipes and their data, with less to do."""
    for name in ("pipelines", "sample_data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "autoif.yaml", folder)
    shutil.copy(ROOT / "autoif.schema.json", folder)
    seeds = folder / "sample_data" / "seed_instructions.txt"
    seeds.write_text(
        "".join(line for line in seeds.read_text().splitlines(True) if "digits" in line or "comma" in line)
    )
    for recipe in (folder / "autoif.yaml", *(folder / "pipelines").glob("*.yaml")):
        text = re.sub(r"n: (?:12|40|8)(?=[ ,}].*(?:completions|demonstrations))", "n: 1", recipe.read_text())
        recipe.write_text(re.sub(r"per_record: \d+", "per_record: 2", text))
    return folder


class Prepared(NamedTuple):
    """A checkout in which the first command of the README has run, and the server that answered."""

    folder: Path
    server: str


@contextmanager
def alone(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """In the folder; what is left in this process (variables, paths, modules, handlers) is taken back at the end."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    variables = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.delitem(sys.modules, "my_blocks", raising=False)
        try:
            yield patch
        finally:
            sys.modules.pop("my_blocks", None)
            os.environ.clear()
            os.environ.update(variables)
            for number, handler in handlers.items():
                signal.signal(number, handler)


class Reader:
    """Follows a page."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server
        self._models: dict[str, object] = {}  # that the page has named so far

    def follow(self, page: Path, run: bool = False, known: Collection[str] = ()) -> None:
        """Does what it says, but only checks its recipes; or runs these, and leaves its commands. Those that are
        `known` to work, from another page, are not run again."""
        with alone(self.folder):
            for language, inside in snippets(page.read_text(encoding="utf-8")):
                if language == "sh" and not run:
                    for command in commands(inside):
                        if command not in known:
                            self.command(command)
                elif language == "yaml":
                    self._take(inside, run)
                elif language == "python" and not (run and "class " not in inside):
                    self.python(inside)

    def _take(self, inside: str, run: bool) -> None:
        try:
            recipe = Recipe.load(self.recipe(inside))
        except RecipeError as error:
            # [dev] has no object store's package: the snippet says which extra brings it, and so does the error.
            if "s3://" in inside and find_spec("s3fs") is None and "pip install 'autoif-blocks[s3]'" in str(error):
                return
            raise
        elsewhere = "://" in SERVER.sub("", inside) or any(model.serve for model in recipe.models.values())
        if run and recipe.executor.type == "local" and not elsewhere:
            assert autoif("run", str(recipe.path), "--limit", "5", "--overwrite", "--quiet") == 0, inside

    def command(self, command: str) -> None:
        words = shlex.split(SERVER.sub(self.server, command))
        if command.startswith(BY_CI):
            return
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ[name] = value
        elif words[:2] == ["autoif", "teacher"]:
            self._serve(words[2:])
        elif words[0] == "autoif" and "|" not in words and ">" not in words:
            code = autoif(*words[1:])
            assert code == 0, f"exit code {code}: {command}"
        else:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            home = {"PATH": path, "HOME": str(self.folder)}
            done = subprocess.run(["bash", "-c", command], env={**os.environ, **home}, check=False, timeout=60)
            assert done.returncode == 0, command

    def _serve(self, options: list[str]) -> None:
        """Until it says where it listens; on a free port, whatever is written."""
        command = [sys.executable, "-m", "autoif_blocks.teacher", *options, "--port", "0", "--exit-with-parent"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.terminate()

    def recipe(self, inside: str) -> Path:
        """The recipe that a snippet is of: itself, or ours with the snippet's keys or steps in the place of its own."""
        given = yaml.safe_load(SERVER.sub(self.server, inside))
        whole = yaml.safe_load((self.folder / "autoif.yaml").read_text(encoding="utf-8"))
        if isinstance(given, list):  # steps: in the place of those of the same name, others before the last but one
            names = {step["name"] for step in given}
            steps = [step for step in whole["steps"] if step["name"] not in names]
            places = [at for at, step in enumerate(whole["steps"]) if step["name"] in names]
            at = places[0] if places else len(steps) - 2
            given = {"steps": steps[:at] + given + steps[at:]}
        self._models |= given.get("models", {})
        for model in self._models.values():
            if isinstance(model, dict) and model.get("mode") == "batch":  # a reader has more time than a test
                model |= {"batch_wait": 0.2, "batch_poll": 0.2}
        path = self.folder / "snippet.yaml"
        path.write_text(
            yaml.safe_dump({**whole, **given, "models": whole["models"] | self._models}, sort_keys=False),
            encoding="utf-8",
        )
        return path

    def python(self, inside: str) -> None:
        """A module of blocks, which recipes that follow may name, or a script."""
        if re.search(r"^class \w+\(", inside, re.MULTILINE):
            (self.folder / "my_blocks.py").write_text(inside, encoding="utf-8")
            sys.modules.pop("my_blocks", None)
            for name in re.findall(r"^class (\w+)\(", inside, re.MULTILINE):
                assert autoif("blocks", f"my_blocks.py:{name}") == 0
        else:
            exec(compile(SERVER.sub(self.server, inside), "snippet.py", "exec"), {"__name__": "__main__"})  # noqa: S102


def autoif(*arguments: str) -> int:
    """The command, in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["autoif", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)
