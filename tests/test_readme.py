"""The README's commands, recipes and code do what it says (a documented command that fails was pitfall 17)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, FakeModel

from autoif_blocks.models import ModelConfig
from autoif_blocks.recipe import Recipe

README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(language, text) for language, text in FENCED.findall(README)]


def commands() -> list[str]:
    lines = [line.split("  #")[0] for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("autoif ")]


def test_the_readme_shows_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_of_the_readme_works(command: str, tmp_path: Path, model: FakeModel) -> None:
    """As written, on a few records; servers that are not here are played by one that is."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "run":
        arguments = [model.url if argument.startswith("http") else argument for argument in arguments]
        arguments += ["--limit", "2", "--end-step", "1", "--output-dir", str(tmp_path)]
    where = tmp_path if arguments[0] == "init" else ROOT
    if arguments[0] in ("cache", "report", "trace", "why", "export"):  # of a recipe that has run, in another directory
        where, recipe = tmp_path, str(ROOT / "autoif.yaml")
        arguments[1] = recipe if arguments[1] == "autoif.yaml" else arguments[1]
        few = ["--end-step", "1"] if arguments[0] != "export" else ["--limit", "2"]
        first = ["run", recipe, *few, "--set", "steps.augment_instructions.self_instruct.n=1"]
        subprocess.run([sys.executable, "-m", "autoif_blocks", *first, "--quiet"], cwd=where, check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "autoif_blocks", *arguments], cwd=where, text=True, capture_output=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_block_of_the_readme_fits_its_recipe(tmp_path: Path) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python" and "class NotAnEcho" in text)
    snippets = [text for language, text in BLOCKS if language == "yaml" and text.startswith("  - name")]
    assert len(snippets) == 3
    (tmp_path / "my_blocks.py").write_text(code)
    recipe = (ROOT / "autoif.yaml").read_text().replace("sample_data/", f"{ROOT}/sample_data/")
    head, _, tail = recipe.partition("  # 9.\n")
    last = tail[tail.index("  # 10.") :]
    (tmp_path / "autoif.yaml").write_text(head + "".join(snippets[1:] + snippets[:1]) + last)
    sys.modules.pop("my_blocks", None)  # another test may have loaded a recipe with a module of that name
    try:
        steps = [step.name for step in Recipe.load(tmp_path / "autoif.yaml").steps]
    finally:
        sys.modules.pop("my_blocks", None)
        sys.path.remove(str(tmp_path))
    assert steps[-4:] == ["not_an_echo", "clean", "score_filter", "sft_data"]


def test_the_models_of_the_readme_are_a_recipe_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, served = (text for language, text in BLOCKS if language == "yaml" and text.startswith("models:"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    recipe = (ROOT / "autoif.yaml").read_text().replace("sample_data/", f"{ROOT}/sample_data/")
    before, rest = recipe.split("models:\n", 1)

    def models(text: str) -> dict[str, ModelConfig]:
        (tmp_path / "autoif.yaml").write_text(before + text + rest[rest.index("sandbox:") :])
        return Recipe.load(tmp_path / "autoif.yaml").models

    assert models(named)["judge"].secret() == "sk-very-secret"
    judge = next(line for line in named.splitlines() if "judge:" in line)
    assert (models(f"{served}{judge}\n")["teacher"].serve, models(f"{served}{judge}\n")["teacher"].tp) == ("vllm", 4)


def test_the_error_of_the_readme_is_the_error(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^autoif\.yaml:\d+: .*$", README, re.MULTILINE)
    text = (ROOT / "autoif.yaml").read_text().replace("    field: score\n    value:", "    feild: score\n    value:")
    (tmp_path / "autoif.yaml").write_text(text.replace("sample_data/", f"{ROOT}/sample_data/"))
    done = subprocess.run(
        [sys.executable, "-m", "autoif_blocks", "check", "autoif.yaml"], cwd=tmp_path, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert shown in done.stderr.splitlines()


def test_every_recipe_is_listed() -> None:
    for path in (ROOT / "pipelines").glob("*.yaml"):
        assert f"pipelines/{path.name}" in README
