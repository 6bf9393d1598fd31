"""The report without a browser: what is counted, what is chosen, and that nothing of a record becomes markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Bench
from test_lineage import STEPS, Said, answer, call, output

from autoif_blocks.lineage import Files
from autoif_blocks.report import report
from autoif_blocks.report import sample as sampling
from autoif_blocks.report.collect import collect
from autoif_blocks.report.measures import family, histogram, languages, near_duplicates
from autoif_blocks.report.page import as_json, render

HOSTILE = [
    "</script><script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">",
    "\u2028\u2029", "\x00\x1b[31m\x9b", "]]><!--", "\\u003cscript\\u003e", "{{ 7 * 7 }}{% raw %}", "'\"&amp;<>`",
    "&lt;script&gt;", "\u202egnp.exe", "javascript:alert(1)", "é漢字🙂",
]  # fmt: skip


def embedded(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="run-data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


class Tags(HTMLParser):
    """The elements of a page, and the names of all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is collected of a real run."""
    from conftest import FakeModel

    model = FakeModel()
    model.answer = answer
    folder = tmp_path_factory.mktemp("report")
    bench = Bench(folder, model)
    (folder / "queries.jsonl").write_text('{"query": "hello?"}\n{"query": "what?"}\n')
    try:
        bench.run(STEPS, [{"instruction": f"Write {n} words."} for n in (1, 2, 3)], more="name: 'a <b>'")
    finally:
        model.close()
    assert report(bench.out) == bench.out / "report.html"
    return {**collect(Files(bench.out)), "out": bench.out, "result": bench.result}


def test_the_counts_are_those_of_the_run(told: dict[str, Any]) -> None:
    assert [step["out"] for step in told["steps"]] == [step["out"] for step in told["result"]["steps"]]
    ends = {(end["step"], end["kind"], end["reason"]): end["count"] for end in told["ends"]}
    assert ends == {
        ("checked", "became", ""): 4, ("verified", "dropped", "duplicate"): 4,
        ("verified", "dropped", "failed_verification"): 4, ("kept", "dropped", "score_not_> 7"): 4,
        ("chat", "survived", ""): 4,
    }  # fmt: skip
    for step in told["steps"]:
        dropped = {end["reason"]: end["count"] for end in told["ends"] if end["step"] == step["name"] and end["reason"]}
        assert dropped == step["dropped"]
    table = {row["label"]: (row["value"], row["share"]) for row in told["table"]}
    assert table["Responses, in total"] == (16, None)
    assert table["Responses that the functions accept"] == (8, 8 / 12)
    assert table["Records for SFT"] == (4, None)


def test_the_histograms_tell_who_survived(told: dict[str, Any]) -> None:
    by_name = {item["field"]: item for item in told["numbers"]}
    assert set(by_name) == {"pass_rate", "score"}
    score = by_name["score"]
    at = {score["edges"][i] + 0.5: (score["kept"][i], score["lost"][i]) for i in range(len(score["kept"]))}
    assert {value: pair for value, pair in at.items() if any(pair)} == {3: (0, 4), 9: (4, 0)}
    assert sum(by_name["pass_rate"]["kept"]) == 4
    assert sum(by_name["pass_rate"]["lost"]) == 8  # four failed with their rate in the drop log, four later
    lengths = {item["field"]: (sum(item["kept"]), sum(item["lost"])) for item in told["lengths"]}
    assert lengths == {"instruction": (4, 0), "response": (4, 12)}  # an instruction survives in its responses
    assert told["functions"]["written"] == 12
    assert told["functions"]["stayed"] == 8
    assert sum(told["functions"]["accuracies"]["lost"]) == 4
    assert told["functions"]["unanimous"] == 8 / 12


def test_every_record_leads_back_to_its_instruction(told: dict[str, Any]) -> None:
    records = told["records"]
    by_id = {entry["id"]: entry for entry in records}
    response = next(entry for entry in records if told["ends"][entry.get("end", 0)]["kind"] == "survived")
    instruction = by_id[response["from"]]
    assert [step for step, *_ in response["steps"]] == [5, 6, 7, 8, 9]
    assert "instruction" not in response["steps"][0][1], "what the parent has is not told twice"
    assert response["steps"][-1][1]["dialogs"] == sampling.REPEATS
    assert instruction["steps"][-1][1]["case_verdicts"]
    new = next(entry for entry in records if "seeds" in entry)
    assert all(seed in by_id for seed in new["seeds"])
    assert told["families"]["instructions"] == 4
    assert told["families"]["families"] == 2
    assert (told["families"]["listed"][0]["responses"], told["families"]["listed"][0]["survived"]) == (12, 3)
    assert told["timeline"]["points"]


def hostile_run(folder: Path) -> Path:
    """A run of which every text is hostile; the step's name, the reasons, the names of fields."""
    evil = "".join(HOSTILE)
    rows: list[tuple[str, dict[str, Any] | bytes]] = []
    for number, text in enumerate(HOSTILE):
        fields = {"instruction": text, "response": text, text: {text: [text]}, "functions": [text], "verdicts": [text]}
        rows.append(("one.jsonl", {"id": f"{number}{text}", **fields, "cases": [{"input": text, "output": text}]}))
        rows.append(("dropped/two.jsonl", {"id": f"{number}{text}", "reason": text, "detail": text, "record": fields}))
    rows.append(("one.jsonl", b'{"id": "z1", "response": "\\ud800 alone", "n": 1e400, "big": ' + b"9" * 400 + b"}\n"))
    out = output(folder, *rows)
    run = json.loads((out / "run.json").read_text())
    run |= {"state": evil, "failure": evil, "started": evil, "recipe": {"name": evil, "data": {"models": {evil: {}}}}}
    run["steps"][1]["dropped"] = {evil: 1}
    run["steps"][0] |= {"discarded": {evil: 1}, "requests": 1}
    (out / "run.json").write_text(json.dumps(run))
    return out


def test_nothing_of_a_record_becomes_markup(tmp_path: Path) -> None:
    page = report(hostile_run(tmp_path / "hostile")).read_text(encoding="utf-8")
    plain = Tags(render(collect(Files(output(tmp_path / "dull", ("one.jsonl", {"id": "x", "response": "r"}))))))
    tags = Tags(page)
    assert tags.names.count("script") == plain.names.count("script") == 5
    assert not {"img", "iframe", "object", "link"} & set(tags.names)
    assert not {name for name in tags.attributes if name.startswith("on")}
    found = embedded(page)
    shown = {entry["steps"][0][1]["response"] for entry in found["records"]}
    assert {*HOSTILE, "� alone"} == shown, "the data is whole"
    assert "49" not in re.sub(r"\d{3,}", "", found["name"])


def test_the_page_runs_only_its_own_scripts_and_fetches_nothing(tmp_path: Path) -> None:
    page = report(output(tmp_path / "o", ("one.jsonl", {"id": "x", "response": "r"}))).read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=", page) == []


@pytest.mark.parametrize("text", [*HOSTILE, "\ud800", "a\ud800b\udfff", "\ufeff", "-->", "</SCRIPT/>"])
def test_json_cannot_end_its_script(text: str) -> None:
    written = as_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029\x00") & set(written)


@pytest.mark.parametrize(
    ("kept", "lost", "edges", "bars"),
    [
        ({1: 2, 3: 1}, {2: 5}, [0.5, 1.5, 2.5, 3.5], ([2, 0, 1], [0, 5, 0])),
        ({7.5: 3}, {}, None, ([3], [0])),
        ({}, {0: 1}, [-0.5, 0.5], ([0], [1])),
        ({float("nan"): 1, float("inf"): 2}, {}, None, None),
        ({}, {}, None, None),
    ],
)
def test_a_histogram(kept: dict[float, int], lost: dict[float, int], edges: Any, bars: Any) -> None:
    found = histogram(kept, lost)
    assert bool(found) == (bars is not None)
    if bars:
        assert (found["kept"], found["lost"]) == bars
        assert edges is None or found["edges"] == edges


def test_a_histogram_loses_nothing_and_cuts_a_long_tail() -> None:
    kept = {n / 20: n + 1 for n in range(21)}
    found = histogram(kept, {})
    assert found["edges"][0] == 0
    assert found["kept"] == list(kept.values())
    assert not found["more"]
    tailed = histogram(dict.fromkeys(range(100, 400), 10), {90_000: 1})
    assert tailed["more"]
    assert tailed["edges"][-1] < 500
    assert sum(tailed["kept"]) + sum(tailed["lost"]) == 3001


def test_families_and_near_duplicates() -> None:
    assert family('Use the word "marble" exactly 5 times.') == family("Use the word “a b” exactly three times")
    assert family("Use no commas.") != family("Use no dots.")
    assert family("Write in verse and don't rhyme, it's fine") == "write in verse and don't rhyme, it's fine"
    texts = ["a b c d e", "e d c b a", "a b c d x", "q", "A, b; c d e f", "", ""]
    assert near_duplicates(texts) == [(1.0, 0, 1), (0.833, 0, 4), (0.833, 1, 4)]
    naive = [f"{a} {b} {c} common words here" for a in "xyz" for b in "uvw" for c in "rst"]
    sets = [set(text.split()) for text in naive]
    pairs = {(i, j) for j in range(27) for i in range(j) if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.6}
    assert {(i, j) for _, i, j in near_duplicates(naive, 0.6)} == pairs
    assert pairs


def test_languages_are_told() -> None:
    texts = ["How do I bake a loaf of bread at home?", "Wie backe ich zu Hause ein Brot, das nicht zu dicht wird?", " "]
    assert languages(texts) == {"en": 1, "de": 1, "?": 1}


def test_the_sample_shows_every_end_and_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[str, dict[str, Any] | bytes]] = []
    for n in range(400):
        rows.append(("one.jsonl", {"id": f"{n:04d}", "response": "r" * 300}))
        reason = "rare" if n == 399 else "often" if n % 2 else ""
        if reason:
            rows.append(("dropped/two.jsonl", {"id": f"{n:04d}", "reason": reason, "record": {"response": "r" * 300}}))
        else:
            rows.append(("two.jsonl", {"id": f"{n:04d}", "response": "r" * 300}))
    out = output(tmp_path / "o", *rows)
    whole = collect(Files(out))
    assert (len(whole["records"]), whole["most"]) == (400, 1000)
    monkeypatch.setattr(sampling, "BUDGET", 20_000)
    small = collect(Files(out))
    assert small["most"] == 25
    counts = [sum(entry["end"] == end for entry in small["records"]) for end in range(len(small["ends"]))]
    assert counts == [25, 1, 25] == [end["shown"] for end in small["ends"]]
    assert [end["count"] for end in small["ends"]] == [199, 1, 200]
    assert collect(Files(out))["records"] == small["records"]


def test_a_report_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    assert call(monkeypatch, "report", tmp_path) == 2
    assert "holds no run" in capsys.readouterr().err
    out = output(tmp_path / "o", ("one.jsonl", b"not JSON\n"))
    assert call(monkeypatch, "report", out, "-o", out / "run.json" / "x.html") == 1
    assert "choose another file with -o" in capsys.readouterr().err
    assert call(monkeypatch, "report", out, "-o", tmp_path / "deep" / "x.html") == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.html"]


def test_a_run_without_any_step_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"state": "failed", "steps": []}')
    assert "failed" in report(tmp_path).read_text()


def test_the_libraries_are_what_their_authors_publish() -> None:
    folder = ROOT / "autoif_blocks" / "report" / "vendor"
    hashes = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
    assert hashes == {
        "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
        "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
    }
    assert (folder / "LICENSE").read_text().count("Permission to use, copy, modify") == 2


@pytest.mark.heavy
def test_the_wheel_has_what_the_page_is_made_of(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "autoif_blocks" / "report").rglob("*.*"):
        if path.suffix in {".js", ".css", ".jinja"} or path.name == "LICENSE":
            assert str(path.relative_to(ROOT)) in names
