"""A scorer that needs no model server: whether one text entails another, by a local cross-encoder."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import DropRecord, StopRun
from ..records import Record
from .base import AsyncBlock

_MODELS = ("onnx/model.onnx", "model.onnx")
_FILES = ("config.json", "tokenizer.json", *_MODELS, "*.onnx_data")


class NliLabel(AsyncBlock):
    """Labels pairs of texts `entailment`, `neutral` or `contradiction` with a model that runs here, on the processor.

    It stands where `judge_label` stands in step 5, asks nobody and costs nothing; `<field>_scores` holds the
    probabilities. Needs `pip install 'autoif-blocks[nli]'`.

    Args:
        encoder: a cross-encoder for natural language inference as ONNX: a name on the Hugging Face Hub, such as
            `cross-encoder/nli-deberta-v3-base`, or a folder with model.onnx, tokenizer.json and config.json.
        premise: the field with the text that is taken for granted.
        hypothesis: the field with the text that may follow from it, or with a list of such texts.
        field: the field for the label; with a list of hypotheses, for the list of labels.
        max_tokens: of a pair; the end of the longer text is cut off.
    """

    kind = "scorer"

    def __init__(
        self, encoder: str, premise: str = "instruction", hypothesis: str = "back_translations",
        field: str = "nli_labels", max_tokens: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        if max_tokens < 8:
            raise ValueError(f"max_tokens must be at least 8, got {max_tokens}")
        self.encoder = encoder
        self.premise, self.hypothesis = premise, hypothesis
        self.field = field
        self.max_tokens = max_tokens
        self.reads = (premise, hypothesis)
        self.writes = (field, f"{field}_scores")
        self._loaded: CrossEncoder | None = None
        self._loading = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_loaded", "_loading")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _loaded=None, _loading=threading.Lock())

    def check(self) -> Iterable[str]:
        if not all(find_spec(package) for package in ("onnxruntime", "tokenizers")):
            yield "nli_label needs packages that are not there: pip install 'autoif-blocks[nli]'"
        if _is_path(self.encoder):
            yield from _missing(Path(self.encoder).expanduser())

    async def handle_async(self, record: Record) -> Iterable[Record]:
        found = record[self.hypothesis]
        texts = found if isinstance(found, list) else [found]
        if not texts:
            raise DropRecord("nothing_to_judge", f"{self.hypothesis} is empty")
        # The pairs of a record are a batch of their own: padding shifts the last digits, so batches of whatever waits
        # would give other scores from run to run.
        scores = await asyncio.to_thread(self._score, [(str(record[self.premise]), str(text)) for text in texts])
        labels = [max(score, key=lambda label: (score[label], label)) for score in scores]
        values: dict[str, list[Any]] = {self.field: labels, f"{self.field}_scores": scores}
        if not isinstance(found, list):
            return [record.with_(**{name: value[0] for name, value in values.items()})]
        return [record.with_(**values)]

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
        with self._loading:
            if self._loaded is None:
                self._loaded = CrossEncoder(_folder(self.encoder), self.max_tokens)
        return self._loaded.score(pairs)


class CrossEncoder:
    """A model that reads two texts together, on onnxruntime. May be used by several threads at once."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Raises StopRun if the folder does not hold such a model."""
        import onnxruntime
        from tokenizers import Tokenizer

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.labels = [str(config["id2label"][key]).lower() for key in sorted(config["id2label"], key=int)]
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # several records at a time use the processor better, and change no digit
            model = next(folder / name for name in _MODELS if (folder / name).exists())
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of tokenizers and onnxruntime all are bare ones
            raise StopRun(
                f"{folder} holds no cross-encoder that can be read: {type(error).__name__}: {error}"
            ) from error
        if not {"entailment", "contradiction"} <= set(self.labels):
            raise StopRun(f"{folder}: its labels are {', '.join(self.labels)}, not entailment, neutral, contradiction")
        self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        pad = config.get("pad_token_id") or 0
        self._tokenizer.enable_padding(pad_id=pad, pad_token=self._tokenizer.id_to_token(pad) or "[PAD]")
        self._wanted = {given.name for given in self._session.get_inputs()}

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
        """The probability of each label, for each pair."""
        import numpy as np

        read = self._tokenizer.encode_batch(list(pairs))
        given = {
            "input_ids": [one.ids for one in read],
            "attention_mask": [one.attention_mask for one in read],
            "token_type_ids": [one.type_ids for one in read],
        }
        inputs = {name: np.asarray(value, dtype=np.int64) for name, value in given.items() if name in self._wanted}
        (logits, *_) = self._session.run(None, inputs)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return [
            {label: round(float(share), 4) for label, share in zip(self.labels, row, strict=True)} for row in shares
        ]


def _is_path(encoder: str) -> bool:
    return encoder.startswith((".", "/", "~")) or Path(encoder).is_dir()


def _missing(folder: Path) -> Iterable[str]:
    if not folder.is_dir():
        yield f"encoder: there is no folder {folder}"
        return
    if not any((folder / name).exists() for name in _MODELS):
        yield f"encoder: {folder} has no {' and no '.join(_MODELS)}"
    for name in _FILES[:2]:
        if not (folder / name).exists():
            yield f"encoder: {folder} has no {name}"


def _folder(encoder: str) -> Path:
    """Raises StopRun if the Hub does not give it."""
    if _is_path(encoder):
        return Path(encoder).expanduser()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(encoder, allow_patterns=list(_FILES)))
    except Exception as error:
        raise StopRun(f"cannot get the encoder '{encoder}' from the Hub: {type(error).__name__}: {error}") from error
