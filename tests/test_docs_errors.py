"""The errors that docs/errors.md explains are those that one gets, word for word."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, FakeModel
from documented import Prepared, alone, autoif, of

PAGE = ROOT / "docs" / "errors.md"
SHOWN = of(PAGE, "text")
SERVER = "http://localhost:8000/v1"  # as the page has it
CHECK = ("check", "autoif.yaml")
RUN = ("run", "autoif.yaml", "--output-dir", "x")
ASK = (*RUN, "--end-step", "1", "--base-url", SERVER)
IMPATIENT = {"max_concurrency: 64": "{connect_patience: 0.1, max_retries: 1}"[1:-1].replace(", ", "\n    ")}
BUDGET = "steps:\n  # 1"
BROKEN = """
from autoif_blocks import Filter


class Broken(Filter):
    def reject(self, record):
        return record["instruction"] + 1
"""

Case = tuple[str, dict[str, str], tuple[str, ...], int, int | None]
# Words that tell a message from the others, edits of autoif.yaml, the command, its exit code, and the status with which
# a server answers, if there is one.
CASES: list[Case] = [
    ("no option 'feild'", {"field: score\n    value": "feild: score\n    value"}, CHECK, 2, None),
    ("no block 'judge_scor'", {"block: judge_score": "block: judge_scor"}, CHECK, 2, None),
    ("whole number", {"    n: 8\n": '    n: "8"\n'}, CHECK, 2, None),
    ("reads 'querry'", {"Query: {{ query }}\n\n      Instruction: {{ instruction }}\n\n      Response": "{{ querry }}"},
     CHECK, 2, None),
    ("there is no file", {"sample_data/queries.jsonl": "queries.jsonl"}, CHECK, 2, None),
    ("a tab cannot indent", {"  - name: score_filter\n": "\t- name: score_filter\n"}, CHECK, 2, None),
    ("a key in a recipe leaks", {"${AUTOIF_API_KEY:-}": "sk-123"}, CHECK, 2, None),
    ("MY_KEY", {"${AUTOIF_API_KEY:-}": "${MY_KEY}"}, RUN, 2, None),
    ("there is no 'score_filtre'", {}, (*CHECK, "--set", "steps.score_filtre.value='> 8'"), 2, None),
    ("cost can only be counted", {BUDGET: f"budget: {{cost: 20}}\n{BUDGET}"}, CHECK, 2, None),
    ("a different run", {}, ("run", "autoif.yaml", "--set", "seed=1"), 2, None),
    ("there is no run", {}, ("status", "somewhere"), 2, None),
    ("cannot connect", IMPATIENT, ASK, 3, None),
    ("HTTP 401", {}, ASK, 3, 401),
    ("HTTP 404", {}, ASK, 3, 404),
    ("HTTP 500", IMPATIENT, ASK, 3, 500),
    ("budget.requests", {BUDGET: f"budget: {{requests: 5}}\n{BUDGET}"}, RUN, 4, None),
    ("no record is left", {'value: "> 7"': 'value: "> 10"'}, RUN, 1, None),
    ("failed on each", {"n: 1 ": "n: 3 ", "  # 2. Ask": '  - {name: mine, block: "my_blocks.py:Broken"}\n  # 2. Ask'},
     (*RUN, "--end-step", "mine"), 1, None),
    ("is empty", {}, ("export", "x", "--format", "messages", "--to", "sft.jsonl"), 1, None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "edits", "command", "code", "status"), CASES, ids=[case[0] for case in CASES])
def test_an_error_reads_as_shown(
    key: str, edits: dict[str, str], command: tuple[str, ...], code: int, status: int | None, prepared: Prepared,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    (shown,) = (text for text in SHOWN if key in text)
    folder = shutil.copytree(prepared.folder, tmp_path / "checkout")
    recipe = (folder / "autoif.yaml").read_text(encoding="utf-8")
    for before, after in edits.items():
        assert before in recipe
        recipe = recipe.replace(before, after)
    (folder / "autoif.yaml").write_text(recipe, encoding="utf-8")
    (folder / "my_blocks.py").write_text(BROKEN)
    if key == "is empty":
        shutil.copytree(folder / "output", folder / "x")
        (folder / "x" / "sft_data.jsonl").write_text("")
    server = "http://127.0.0.1:9/v1"
    if status is not None:
        model: FakeModel = request.getfixturevalue("model")
        model.answer = lambda prompt: status
        server = model.url
    with alone(folder):
        monkeypatch.setenv("AUTOIF_BASE_URL", prepared.server)
        assert autoif(*(word.replace(SERVER, server) for word in command)) == code
    said = capfd.readouterr().err.replace(server, SERVER).replace(f"{folder}/", "").replace("as the test wishes", "…")
    seconds = re.compile(r"for \d+ s\b")  # of which there are more where the machine is busy
    assert seconds.sub("for a while", shown.strip()) in seconds.sub("for a while", said)


def test_every_error_of_the_page_is_tried() -> None:
    assert [text for text in SHOWN if sum(case[0] in text for case in CASES) != 1] == []


def test_the_reasons_of_the_page_are_reasons() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "autoif_blocks").rglob("*.py"))
    table = PAGE.read_text(encoding="utf-8").partition("| reason |")[2].partition("\n## ")[0]
    reasons = [
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")
    ]
    assert len(reasons) > 15
    recipe = (ROOT / "autoif.yaml").read_text(encoding="utf-8")  # a label is a reason, too
    assert [name for name in reasons if f'"{name}"' not in code and f"label: {name}" not in recipe] == []
