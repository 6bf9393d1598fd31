"""The import rule: read the layers top to bottom; a module imports only what stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autoif_blocks"

ORDER = """
    errors plain storage records languages perturbations parsing accounting stopping budget
    cache carving salvage cache_parts upkeep prompts answers models limits
    orphans serving.host serving.state serving.supervisor serving batch batches endpoint endpoints hedging client
    sandbox.policy sandbox.dull sandbox.jobs sandbox.kernel sandbox.layers
    sandbox.child sandbox.zygote sandbox.worker sandbox.pool sandbox.doctor sandbox
    streaming warned context
    blocks.threshold blocks.functions rewards
    blocks.base blocks.kinds blocks.readers blocks.queries blocks.generators blocks.executors
    blocks.repair blocks.quality blocks.judges blocks.nli blocks.pairs
    blocks.filters blocks.duplicates blocks.behaviour
    blocks.contamination blocks.conflicts blocks.compose blocks.constraints blocks.writers blocks.foreign blocks
    options source overrides resolve servers steps growth flow wiring recipe
    ping identity state status outputs results series summary simulated timeline workers claim cache_mirror mirror
    executors.tasks executors.stages executors.local executors.ray executors.slurm executors
    run
    progress.table progress.estimate progress.figures progress.lines progress.view progress
    autoif plan describe schema starter compare cache_command status_command
    lineage lineage_command preview
    report.measures report.sample report.reading report.collect report.page report
    export.layouts export.pairs export.prompts export.files export.environment export.card export.hub export
    teacher.chance teacher.prose teacher.chinese teacher.family teacher.families_case teacher.families_chinese
    teacher.families_layout teacher.families_length teacher.families_letters teacher.families_lists
    teacher.families_marks teacher.families_sentences teacher.families_words teacher.families teacher.composed
    teacher.hostile teacher.tasks teacher.verifiers teacher.replies teacher.batches teacher.config teacher.server
    teacher teacher.__main__
    cli.options cli.recipes cli.running cli.results cli.machine cli __main__
"""
LAYERS = ORDER.split()

# `Recipe.load(path).run()` is promised to users; the import stands in the method, so that checking loads no runner.
ALLOWED = {("recipe", "run")}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}


def for_types_only(tree: ast.AST) -> set[ast.AST]:
    """The nodes under `if TYPE_CHECKING:`."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    return {inner for test in tests for statement in test.body for inner in ast.walk(statement)}


def imports(module: str, source: str) -> Iterator[str]:
    """The modules that one module imports, wherever in it: our own as in `ORDER`, others by their full name."""
    tree = ast.parse(source)
    exempt = for_types_only(tree)
    folder = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if node in exempt:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("autoif_blocks.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) + 1 - node.level] if node.level else []
            inside = node.level > 0 or (node.module or "").startswith("autoif_blocks")
            named = (node.module or "").removeprefix("autoif_blocks").strip(".")
            start = ".".join([*base, *([named] if named else [])])
            for alias in node.names:
                full = f"{start}.{alias.name}".strip(".")
                yield full if inside and full in MODULES else start


def test_every_module_has_its_layer() -> None:
    assert sorted(LAYERS) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_only_upwards(module: str) -> None:
    above = LAYERS[: LAYERS.index(module)]
    found = {name for name in imports(module, MODULES[module].read_text(encoding="utf-8")) if name in MODULES}
    assert found - set(above) - {upward for low, upward in ALLOWED if low == module} == set()


def test_imports_are_found_however_they_are_written() -> None:
    written = (
        "from . import queries\nfrom .base import Block\nfrom ..run import run\nimport autoif_blocks.cli, json\n"
        "from autoif_blocks.teacher import server\nfrom autoif_blocks import progress\n"
        "if TYPE_CHECKING:\n    from ..autoif import AutoIF\ndef f():\n    import pickle\n"
    )
    assert set(imports("blocks.filters", written)) == {
        "blocks.queries", "blocks.base", "run", "cli", "json", "teacher.server", "progress", "pickle",
    }  # fmt: skip


def calls(source: str) -> set[str]:
    functions = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {f.id if isinstance(f, ast.Name) else f.attr for f in functions if isinstance(f, (ast.Name, ast.Attribute))}


def test_only_the_sandboxed_child_runs_code() -> None:
    running = {module for module, path in MODULES.items() if {"exec", "eval"} & calls(path.read_text(encoding="utf-8"))}
    assert running == {"sandbox.child"}


def test_nothing_reads_pickles() -> None:
    pickles = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    found = {
        module: pickles & set(imports(module, path.read_text(encoding="utf-8"))) for module, path in MODULES.items()
    }
    assert {module: names for module, names in found.items() if names} == {}
