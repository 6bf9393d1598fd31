"""Exports: the layouts that trainers document, whole files, a card that tells no secret, and the Hub up to its wire."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conftest import Bench, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lineage import Said, call

from autoif_blocks.errors import RecipeError
from autoif_blocks.export import _read, export
from autoif_blocks.export.layouts import LAYOUTS, Chat, chat_of, columns_of
from autoif_blocks.export.pairs import PAIR_LAYOUTS, pair_of
from autoif_blocks.lineage import Files
from autoif_blocks.recipe import Recipe
from autoif_blocks.records import to_line
from autoif_blocks.report.collect import collect

TURNS = [{"role": "user", "content": "q\ni"}, {"role": "assistant", "content": "r"}]
SAID = [{"from": "human", "value": "q\ni"}, {"from": "gpt", "value": "r"}]
EXPECTED: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "dialogs": {"dialogs": TURNS},
    "sharegpt": {"conversations": SAID, "system": ""},
    "alpaca": {"instruction": "q\ni", "input": "", "output": "r", "system": ""},
}
PAIRS: dict[str, dict[str, Any]] = {
    "dpo": {
        "prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "q\ni"}],
        "chosen": [{"role": "assistant", "content": "r"}], "rejected": [{"role": "assistant", "content": "s"}],
    },
    "ranking": {
        "conversations": [{"from": "human", "value": "q\ni"}], "chosen": {"from": "gpt", "value": "r"},
        "rejected": {"from": "gpt", "value": "s"}, "system": "be kind",
    },
}  # fmt: skip
STEPS = """
  - {name: verified, block: verify_responses}
  - {name: chat, block: format_sft, format: FORMAT, keep: [query]}
"""


def run(bench: Bench, layout: str = "dialogs", count: int = 1, more: str = "") -> Path:
    functions = ["def evaluate(response):\n    return True\n"]
    given = [{"query": "q", "instruction": "i", "response": "r", "functions": functions, "n": n} for n in range(count)]
    bench.run(STEPS.replace("FORMAT", layout), given, more)
    return bench.out


def run_of_pairs(bench: Bench, count: int = 1) -> Path:
    given = [{"query": "q", "instruction": "i", "chosen": "r", "rejected": "s", "n": n} for n in range(count)]
    bench.run("\n  - {name: pairs, block: format_dpo, system: be kind, keep: [query]}\n", given)
    return bench.out


@pytest.mark.parametrize("made", LAYOUTS)
@pytest.mark.parametrize("wanted", LAYOUTS)
def test_every_layout_is_made_of_every_other(tmp_path: Path, made: str, wanted: str) -> None:
    row = columns_of(Chat("x", "be kind", [("user", "q\ni"), ("assistant", "r")], {}), made)
    chat = chat_of(to_line({"id": "x", **row}))
    assert chat == Chat("x", "be kind", [("user", "q\ni"), ("assistant", "r")], {})
    assert tuple(columns_of(chat, wanted)) == tuple(LAYOUTS[wanted])
    plain = columns_of(Chat("x", "", chat.turns, {}), wanted)
    assert plain == EXPECTED[wanted]


TEXT = st.text(min_size=1)


@settings(deadline=None, max_examples=50)
@given(st.text(), st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(["messages", "sharegpt"]))
def test_no_word_of_a_chat_is_lost(system: str, pairs: list[tuple[str, str]], layout: str) -> None:
    turns = [turn for said, answered in pairs for turn in (("user", said), ("assistant", answered))]
    chat = Chat("x", system, turns, {})
    clean = json.loads(to_line({"texts": [system, *(text for _, text in turns)]}))["texts"]  # what UTF-8 can hold
    found = chat_of(to_line({"id": "x", **columns_of(chat, layout)}))
    assert [found.system, *(text for _, text in found.turns)] == clean


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"[]", "a JSON object is needed"), (b"{", "JSON"), (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "x", "response": "r"}', "end the recipe with a format_sft step"),
        (b'{"messages": ["hi"]}', "list of {role, content}"), (b'{"messages": []}', "got nothing"),
        (b'{"messages": [{"role": "user", "content": 7}]}', "'content' must be a text, got '7'"),
        (b'{"messages": [{"role": "user", "content": "q"}]}', "in turn, got user"),
        (b'{"messages": [{"role": "tool", "content": "q"}]}', "in turn, got tool"),
        (json.dumps({"messages": TURNS * 2}).encode(), "alpaca holds one exchange, this chat has 2"),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_refused_by_line(bench: Bench, row: bytes, told: str) -> None:
    out = run(bench)
    with (out / "chat.jsonl").open("ab") as file:
        file.write(row + b"\n")
    for target in ("x.jsonl", "x.parquet", "folder"):
        if target != "x.parquet" or find_spec("pyarrow"):
            with pytest.raises(Exception, match=r"chat\.jsonl:2: ") as error:
                export(out, "alpaca", bench.folder / target)
            assert told in str(error.value)
    left = {path.name for path in bench.folder.iterdir()}
    assert not {name for name in left if "folder" in name or name.startswith((".", "x."))}, "nothing half-written"


def test_a_file_a_folder_and_what_is_beside(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    out = run(bench, "sharegpt", count=3, more="name: mine")
    where = bench.folder / "deep" / "sft.jsonl"
    assert call(monkeypatch, "export", out, "--format", "messages", "--to", where) == 0
    assert capsys.readouterr().out == f"3 records in {where}\n"
    assert rows(where) == [EXPECTED["messages"]] * 3
    assert call(monkeypatch, "export", out, "--format", "messages", "--to", where, "--keep") == 0
    assert rows(where)[0] == {
        **EXPECTED["messages"],
        "id": rows(out / "chat.jsonl")[0]["id"],
        "metadata": {"query": "q"},
    }
    folder = bench.folder / "data set"
    for layout in ("alpaca", "messages"):  # an export replaces an export
        assert call(monkeypatch, "export", out, "--format", layout, "--to", folder, "--license", "cc-by-4.0") == 0
    assert rows(folder / "data" / "train.jsonl") == [EXPECTED["messages"]] * 3
    assert sorted(path.name for path in bench.folder.iterdir() if path.name.startswith(".")) == []
    (folder / "notes.txt").write_text("mine")
    for target in (folder, out, bench.folder / "in.jsonl" / "x.jsonl"):
        assert call(monkeypatch, "export", out, "--format", "messages", "--to", target) in (1, 2)
    assert (folder / "notes.txt").read_text() == "mine"
    assert call(monkeypatch, "export", out, "--format", "messages") == 2
    assert call(monkeypatch, "export", out, "--format", "messages", "--to", "x", "--push-to-hub", "y") == 2
    assert call(monkeypatch, "export", bench.folder, "--format", "messages", "--to", where) == 2
    (out / "chat.jsonl").write_text("")
    assert call(monkeypatch, "export", out, "--format", "messages", "--to", where) == 1
    assert "nothing to export" in capsys.readouterr().err
    assert len(rows(where)) == 3, "what was there stays"


def test_a_last_step_in_shards_is_read_as_one(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    given = [{"query": str(n), "instruction": "i", "response": "r"} for n in range(5)]
    Recipe.load(bench.recipe("  - {name: chat, block: format_sft}\n", given, "shards: 3")).run()
    out = bench.out
    assert not (out / "chat.jsonl").exists()
    assert export(out, "messages", bench.folder / "x.jsonl") == 5
    found = collect(Files(out))
    assert [(end["kind"], end["count"]) for end in found["ends"]] == [("survived", 5)]
    assert {entry["steps"][-1][0] for entry in found["records"]} == {2}
    assert call(monkeypatch, "why", out, found["records"][0]["id"]) == 0
    assert f"survived: it is in {out / 'chat'}\n" in capsys.readouterr().out


def test_the_card_tells_how_the_data_was_made_and_no_secret(bench: Bench) -> None:
    evil = "name: 'a | <b>'\nbudget: {minutes: 7}\n"
    out = run(bench, more=evil)
    state = json.loads((out / "run.json").read_text())
    state["recipe"]["data"]["models"]["teacher"]["api_key"] = "sk-secret"
    state["recipe"]["data"]["steps"].append({"name": "p", "prompt": "```python\n````x\n"})
    state["limit"] = 5
    (out / "run.json").write_text(json.dumps(state))
    export(out, "messages", bench.folder / "set", licence="cc-by-4.0")
    text = (bench.folder / "set" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["configs"][0]["data_files"]) == (
        "cc-by-4.0", [{"split": "train", "path": "data/train.jsonl"}],
    )  # fmt: skip
    assert "sk-secret" not in text
    assert bench.model.url not in text
    assert "minutes" not in text
    for told in (
        "1 chats whose responses were verified by execution", "teacher: fake", "| seed of all random choices | 0 |",
        "| verified | 1 | 1 |", "This is of a trial, with `--limit 5`", "\n`````yaml\n", "autoif-blocks 0",
        '"role_tag": "role"',
    ):  # fmt: skip
        assert told in text, told


def have(*names: str) -> None:
    if missing := [name for name in names if find_spec(name) is None]:
        said = f"{' and '.join(missing)} not installed: pip install datasets transformers, and trl with --no-deps"
        pytest.fail(said) if os.environ.get("AUTOIF_DATASETS") == "required" else pytest.skip(said)


LOADED = """
import json, sys, warnings
from datasets import load_dataset
data = load_dataset(*json.loads(sys.argv[1]), split="train")
print(json.dumps({"columns": data.column_names, "rows": data.to_list(), "features": str(data.features)}))
"""


def loaded(*what: object) -> dict[str, Any]:
    """What `load_dataset` makes of its arguments: columns, rows, features."""
    have("datasets", "pyarrow")
    return python(LOADED, json.dumps([part and str(part) for part in what]))


def python(program: str, argument: str) -> dict[str, Any]:
    """The JSON object that a program prints last. It has a process of its own, and no network."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", program, argument], text=True, capture_output=True, check=False, timeout=120,
            env={**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def exported(bench: Bench, form: str) -> tuple[object, ...]:
    """How `load_dataset` is asked for an export of this form."""
    target = bench.folder / form
    return (target,) if form == "folder" else ("json" if form == "x.jsonl" else "parquet", None, None, target)


@pytest.mark.heavy
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["folder", "x.jsonl", "x.parquet"])
def test_the_real_datasets_library_loads_it(bench: Bench, layout: str, form: str) -> None:
    """As TRL and LLaMA-Factory do, with the columns that they document."""
    export(run(bench, count=3), layout, bench.folder / form)
    found = loaded(*exported(bench, form))
    assert found["columns"] == list(LAYOUTS[layout])
    assert found["rows"] == [EXPECTED[layout]] * 3


@pytest.mark.parametrize("layout", PAIR_LAYOUTS)
def test_pairs_have_the_columns_that_trainers_document(bench: Bench, layout: str) -> None:
    out = run_of_pairs(bench, count=2)
    assert list(PAIRS[layout]) == list(PAIR_LAYOUTS[layout])
    assert export(out, layout, bench.folder / "set") == 2
    assert rows(bench.folder / "set" / "data" / "train.jsonl") == [PAIRS[layout]] * 2
    card = (bench.folder / "set" / "README.md").read_text()
    assert "\n2 pairs, made by" in card
    assert ('"ranking": true' in card, "`DPOTrainer`" in card) == (layout == "ranking", layout == "dpo")
    export(out, layout, bench.folder / "kept.jsonl", keep=True)
    assert rows(bench.folder / "kept.jsonl")[0]["metadata"] == {"query": "q"}
    with pytest.raises(RecipeError, match=r"pairs\.jsonl:1: no chat: .*; this is a pair: use --format dpo or ranking"):
        export(out, "messages", bench.folder / "x.jsonl")


HOLDING: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "prompt": {
        "messages": [{"role": "user", "content": "q"}], "dataset": "autoif", "ground_truth": '[{"functions": ["x"]}]',
    },
    "pair": {"prompt": [{"role": "user", "content": "q"}], "chosen": [], "rejected": []},
    "made_pair": {"query": "q", "chosen": "a", "rejected": "b"},
    "nothing": {"query": "q"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("held", "layout", "told"),
    [
        ("chat", "dpo", "this is a chat: use --format messages, sharegpt, alpaca or dialogs"),
        ("chat", "rlvr", "this is a chat: use --format messages"),
        ("prompt", "messages", "got user; this is a prompt: use --format rlvr or verifiers"),
        ("prompt", "ranking", "this is a prompt: use --format rlvr or verifiers"),
        ("pair", "messages", "this is a pair: use --format dpo or ranking"),
        ("pair", "rlvr", "this is a pair: use --format dpo or ranking"),
        ("made_pair", "messages", "end the recipe with a format_sft step, as pipelines/paper.yaml does"),
        ("made_pair", "dpo", "there is no prompt, the row has id, query, chosen, rejected; end the recipe with a "
         "format_dpo step, as pipelines/dpo.yaml does"),
        ("nothing", "rlvr", "end the recipe with a format_rlvr step, as pipelines/rlvr.yaml does"),
    ],
)  # fmt: skip
def test_who_exports_the_wrong_thing_is_told_what_would_be_right(held: str, layout: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        _read(json.dumps({"id": "x", **HOLDING[held]}).encode(), layout)
    assert told in str(error.value)


def test_a_run_that_ended_early_says_so(bench: Bench) -> None:
    out = run(bench, count=1)
    state = json.loads((out / "run.json").read_text())
    state["steps"] = state["steps"][:1]
    (out / "run.json").write_text(json.dumps(state))
    last = f"its recipe goes on to '{state['recipe']['data']['steps'][-1]['name']}': run that, too"
    with pytest.raises(RecipeError, match="The run ended with step 'given', " + last):
        export(out, "dpo", bench.folder / "x.jsonl")


def test_chats_are_no_pairs(bench: Bench) -> None:
    with pytest.raises(RecipeError, match=r"chat\.jsonl:1: no pair: there is no chosen and no prompt and no rejected"):
        export(run(bench), "dpo", bench.folder / "x.jsonl")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rejected": [{"role": "assistant", "content": " r\n"}]}, "chosen and rejected are equal"),
        ({"chosen": "r"}, "'chosen' must be a list of {role, content}"),
        ({"chosen": []}, "'chosen' must be one message of the assistant"),
        ({"chosen": [{"role": "user", "content": "r"}]}, "'chosen' must be one message of the assistant"),
        ({"chosen": [{"role": "assistant", "content": None}]}, "'content' must be a text, got 'None'"),
        ({"prompt": []}, "a prompt needs the user"), ({"prompt": TURNS}, "the user last, got user, assistant"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "the user last"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_refused(change: dict[str, Any], told: str) -> None:
    assert pair_of(to_line(PAIRS["dpo"])).prompt == [("user", "q\ni")]
    with pytest.raises(ValueError, match=r".") as error:
        pair_of(to_line({**PAIRS["dpo"], **change}))
    assert told in str(error.value)


@pytest.mark.heavy
@pytest.mark.parametrize("layout", PAIR_LAYOUTS)
@pytest.mark.parametrize("form", ["folder", "x.jsonl", "x.parquet"])
def test_the_real_datasets_library_loads_pairs(bench: Bench, layout: str, form: str) -> None:
    export(run_of_pairs(bench, count=3), layout, bench.folder / form)
    found = loaded(*exported(bench, form))
    assert (found["columns"], found["rows"]) == (list(PAIR_LAYOUTS[layout]), [PAIRS[layout]] * 3)


TRAINED = """
import json, sys
from datasets import load_dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template, is_conversational, maybe_extract_prompt, unpair_preference_dataset

data = load_dataset("json", data_files=sys.argv[1], split="train")
words = Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))
template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" \\
    "{% if add_generation_prompt %}<assistant>{% endif %}"
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)
told = {"conversational": is_conversational(data[0]), "explicit": maybe_extract_prompt(data[0]) == data[0]}
told["rendered"] = data.map(apply_chat_template, fn_kwargs={"processing_class": tokenizer}).to_list()
told["unpaired"] = unpair_preference_dataset(data).column_names
print(json.dumps(told))
"""


@pytest.mark.heavy
def test_the_real_trl_takes_the_pairs_as_they_are(bench: Bench) -> None:
    """What `DPOTrainer` does to a data set before it is tokenized; that needs no torch."""
    have("datasets", "pyarrow", "trl", "transformers")
    export(run_of_pairs(bench, count=3), "dpo", bench.folder / "x.jsonl")
    told = python(TRAINED, str(bench.folder / "x.jsonl"))
    assert told == {
        "conversational": True, "explicit": True, "unpaired": ["prompt", "completion", "label"],
        "rendered": [{"prompt": "<system>be kind<user>q\ni<assistant>", "chosen": "r", "rejected": "s"}] * 3,
    }  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """What the Hub's wire needs for one commit."""

    seen: ClassVar[list[tuple[str, str, Any]]] = []
    refuse = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.seen.append((self.path, str(self.headers.get("Authorization")), lines))
        if self.refuse:
            self._answer({"error": "no right to write here"}, 403)
        elif self.path == "/api/repos/create":
            self._answer({"url": "http://127.0.0.1/datasets/me/set", "id": "me/set"})
        elif "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            self._answer({"commitUrl": "http://127.0.0.1/datasets/me/set/commit/1", "commitOid": "1", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self.seen.append((self.path, str(self.headers.get("Authorization")), []))
        self._answer({"id": "me/set", "sha": "0", "siblings": [], "name": "me", "type": "user"})

    def _answer(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.seen.clear()
    Hub.refuse = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def push(bench: Bench, out: Path, endpoint: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = ["export", str(out), "--format", "messages", "--push-to-hub", "me/set", *more]
    keys = {"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_key", "HF_HOME": str(bench.folder / "hf")}
    return subprocess.run(
        [sys.executable, "-m", "autoif_blocks", *command], text=True, capture_output=True, timeout=120,
        env={**os.environ, **keys}, check=False,
    )  # fmt: skip


@pytest.mark.heavy
def test_a_push_is_one_commit_of_card_and_data(bench: Bench, hub: str) -> None:
    out = run(bench, count=2)
    done = push(bench, out, hub, "--license", "cc-by-4.0")
    assert done.returncode == 0, done.stderr
    assert "2 records in http" in done.stdout
    created = next(lines[0] for path, _, lines in Hub.seen if path == "/api/repos/create")
    assert (created["name"], created["type"]) == ("set", "dataset")
    assert created.get("private") is True or created.get("visibility") == "private"
    (commit,) = [lines for path, _, lines in Hub.seen if "/commit/" in path]
    sent = {line["value"]["path"]: line["value"]["content"] for line in commit if line["key"] == "file"}
    assert set(sent) == {"README.md", "data/train.jsonl"}
    data = base64.b64decode(sent["data/train.jsonl"]).decode()
    assert [json.loads(line) for line in data.splitlines()] == [EXPECTED["messages"]] * 2
    assert "license: cc-by-4.0" in base64.b64decode(sent["README.md"]).decode()
    assert {key for path, key, _ in Hub.seen if "create" in path or "/commit/" in path} == {"Bearer hf_key"}


@pytest.mark.heavy
def test_a_hub_that_refuses_or_is_not_there_is_told(bench: Bench, hub: str) -> None:
    out = run(bench)
    Hub.refuse = True
    done = push(bench, out, hub)
    assert done.returncode == 1
    assert "cannot push to me/set" in done.stderr
    assert "Traceback" not in done.stderr
    done = push(bench, out, "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot push to me/set" in done.stderr
    assert "hf_key" not in done.stdout + done.stderr
    assert not [path for path, _, _ in Hub.seen if "/commit/" in path]
