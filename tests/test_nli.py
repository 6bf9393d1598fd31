"""nli_label: labels by a local cross-encoder. The model is a small one, made here; the packages are the real ones."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench

from autoif_blocks.blocks.nli import CrossEncoder, NliLabel
from autoif_blocks.errors import StopRun
from autoif_blocks.recipe import Recipe

HAVE = all(importlib.util.find_spec(name) for name in ("onnxruntime", "tokenizers", "onnx"))
nli = [
    pytest.mark.heavy,
    pytest.mark.nli,
    pytest.mark.skipif(not HAVE and os.environ.get("AUTOIF_NLI") != "required", reason="needs onnxruntime, onnx"),
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "use", "do", "not", "digits", "any"]
LABELS = {"0": "CONTRADICTION", "1": "entailment", "2": "neutral"}


def make_encoder(folder: Path, labels: dict[str, str] | None = None) -> Path:
    """One that finds a contradiction where exactly one of two texts says "not", and else entailment: the logits are
    (4 f², 2, 0), where f counts the "not" of the first text less those of the second."""
    import numpy as np
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    weights = np.zeros(len(WORDS), dtype=np.float32)
    weights[WORDS.index("not")] = 1
    constants = {
        "weights": weights, "two": np.float32(2), "one": np.float32(1), "axis": np.array([1]),
        "scale": np.array([[4, 0, 0]], dtype=np.float32), "base": np.array([[0, 2, 0]], dtype=np.float32),
    }  # fmt: skip
    nodes = [
        h.make_node("Gather", ["weights", "input_ids"], ["w"]),
        h.make_node("Cast", ["token_type_ids"], ["kind"], to=T.FLOAT),
        h.make_node("Mul", ["kind", "two"], ["twice"]),
        h.make_node("Sub", ["one", "twice"], ["sign"]),
        h.make_node("Cast", ["attention_mask"], ["mask"], to=T.FLOAT),
        h.make_node("Mul", ["w", "sign"], ["signed"]),
        h.make_node("Mul", ["signed", "mask"], ["masked"]),
        h.make_node("ReduceSum", ["masked", "axis"], ["f"], keepdims=1),
        h.make_node("Mul", ["f", "f"], ["f2"]),
        h.make_node("Mul", ["f2", "scale"], ["scaled"]),
        h.make_node("Add", ["scaled", "base"], ["logits"]),
    ]
    inputs = [
        h.make_tensor_value_info(name, T.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    graph = h.make_graph(
        nodes, "nli", inputs, [h.make_tensor_value_info("logits", T.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), folder / "onnx/model.onnx")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"id2label": labels or LABELS, "pad_token_id": 0}))
    return folder


RECORDS = [
    {
        "id": "1",
        "instruction": "do not use digits",
        "back_translations": ["do not use any digits", "use digits", "not"],
    },
    {"id": "2", "instruction": "use digits", "back_translations": ["use any"]},
    {"id": "3", "instruction": "use digits", "back_translations": []},
]
STEP = "  - name: nli\n    blocks:\n      - {{block: nli_label, encoder: '{}'}}\n"


class Test:
    pytestmark = nli

    def test_records_get_a_label_for_each_hypothesis(self, bench: Bench, tmp_path: Path) -> None:
        step = STEP.format(make_encoder(tmp_path / "encoder"))
        rows = {row["instruction"]: row for row in bench.run(step, RECORDS)}
        first = rows["do not use digits"]
        assert first["nli_labels"] == ["entailment", "contradiction", "entailment"]
        assert rows["use digits"]["nli_labels"] == ["entailment"]
        scores = first["nli_labels_scores"]
        # softmax of (4, 2, 0) and of (0, 2, 0)
        assert scores[1] == pytest.approx({"contradiction": 0.8668, "entailment": 0.1173, "neutral": 0.0159}, abs=2e-4)
        assert scores[0] == pytest.approx({"contradiction": 0.1065, "entailment": 0.787, "neutral": 0.1065}, abs=2e-4)
        (dropped,) = bench.dropped("nli")
        assert (dropped["reason"], dropped["detail"]) == ("nothing_to_judge", "back_translations is empty")
        assert bench.model.prompts == []

    def test_it_stands_where_the_judge_stands(self, bench: Bench, tmp_path: Path) -> None:
        step = STEP.format(make_encoder(tmp_path / "encoder")) + (
            "      - {block: drop_label, field: nli_labels, label: contradiction, when: any}\n"
        )
        assert [row["instruction"] for row in bench.run(step, RECORDS)] == ["use digits"]
        assert bench.step("nli")["dropped"] == {"contradiction": 1, "nothing_to_judge": 1}

    def test_long_texts_are_cut_and_one_text_gets_one_label(self, tmp_path: Path) -> None:
        encoder = CrossEncoder(make_encoder(tmp_path), max_tokens=16)
        (score,) = encoder.score([("use " * 500 + "not", "use")])
        assert max(score, key=score.__getitem__) == "entailment"

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda folder: (folder / "onnx/model.onnx").write_bytes(b"no model"), "holds no cross-encoder"),
            (lambda folder: (folder / "tokenizer.json").write_text("{}"), "holds no cross-encoder"),
            (
                lambda folder: make_encoder(folder, {"0": "yes", "1": "no", "2": "maybe"}),
                "its labels are yes, no, maybe",
            ),
        ],
    )
    def test_what_is_no_such_model_stops_the_run(self, spoil: Any, said: str, tmp_path: Path) -> None:
        spoil(make_encoder(tmp_path))
        with pytest.raises(StopRun, match=said):
            CrossEncoder(tmp_path, 512)


def test_what_is_missing_is_said_before_the_run(bench: Bench, tmp_path: Path) -> None:
    recipe = bench.recipe(STEP.format(tmp_path / "none"), RECORDS)
    said = " ".join(str(problem) for problem in NliLabel(str(tmp_path / "none")).check())
    assert "there is no folder" in said
    assert HAVE or "pip install 'autoif-blocks[nli]'" in said
    (tmp_path / "none").mkdir()
    assert "has no tokenizer.json" in " ".join(NliLabel(str(tmp_path / "none")).check())
    with pytest.raises(Exception, match="encoder"):
        Recipe.load(recipe).run()
    with pytest.raises(ValueError, match="max_tokens"):
        NliLabel("a/b", max_tokens=2)
