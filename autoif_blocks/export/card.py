"""The card of a data set: where it comes from, in the form that the Hub reads."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ..models import SIMULATED
from ..plain import one_line
from .pairs import PAIR_LAYOUTS

_PUBLIC = ("name", "seed", "text", "models", "sandbox", "steps")  # what shapes the data; not where and how it was run
_TAGS = {"pairs": ("dpo",), "prompts": ("rlvr",)}
_VERIFYING = {"VerifyResponses", "VerifyConstraints", "RateResponses"}
_FILTER = "Decontaminate"
_LLAMA_FACTORY: dict[str, dict[str, Any]] = {
    "messages": {
        "formatting": "sharegpt", "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                 "system_tag": "system"},
    },
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}},
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "system": "system"},
    },
    "ranking": {
        "formatting": "sharegpt", "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"},
    },
}  # fmt: skip


def card(run: dict[str, Any], layout: str, count: int, name: str, licence: str) -> str:
    """The text of the README.md: a head for the Hub, and for people how the data was made.

    Of the recipe's models it has the names alone: neither keys nor addresses.
    """
    recipe = run.get("recipe") or {}
    data = {key: value for key, value in (recipe.get("data") or {}).items() if key in _PUBLIC}
    models: dict[str, Any] = data["models"] if isinstance(data.get("models"), dict) else {}
    data["models"] = {role: {"model": model.get("model")} for role, model in models.items() if isinstance(model, dict)}
    blocks = {block.get("block") for step in run["steps"] for block in step.get("blocks") or []}
    verified = " whose responses were verified by execution (AutoIF, arXiv 2406.13542)" if blocks & _VERIFYING else ""
    named = _words(recipe.get("name", ""))
    things = "pairs" if layout in PAIR_LAYOUTS else "chats"
    if layout in ("rlvr", "verifiers"):
        things, verified = "prompts", " with functions that verify an answer (AutoIF, arXiv 2406.13542)"
    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.jsonl"}]}]
    head = {
        **({"license": one_line(licence)} if licence else {}),
        "pretty_name": one_line(name),
        "task_categories": ["text-generation"],
        "tags": ["instruction-following", "synthetic", "autoif", *_TAGS.get(things, ())],
        **({} if layout == "verifiers" else {"configs": configs}),
    }
    parts = [
        f"---\n{_yaml(head)}---\n\n# {_words(name)}\n",
        f"{count} {things}{verified}, made by AutoIF Blocks with the recipe {named}.\n",
        _warnings(run, models),
        "| | |\n|---|---|\n" + "".join(f"| {key} | {_cell(value)} |\n" for key, value in _facts(run, data, licence)),
        f"## Counts\n\n{_counts(run)}",
        f"## Use\n\n{_use(layout, name)}",
        f"## Recipe\n\n{_fenced(_yaml(data), 'yaml')}",
    ]
    return "\n".join(part for part in parts if part)


def _warnings(run: dict[str, Any], models: dict[str, Any]) -> str:
    said = []
    if any(isinstance(model, dict) and SIMULATED in str(model.get("base_url")) for model in models.values()):
        said.append("The recipe names the simulated teacher: its answers are stock sentences, no training data.")
    if run.get("state") != "completed":
        said.append(f"The run is {_words(run.get('state'))}: this is a part of what its recipe makes.")
    if run.get("limit"):
        said.append(f"This is of a trial, with `--limit {run['limit']}`.")
    return "".join(f"> {line}\n\n" for line in said)


def _facts(run: dict[str, Any], data: dict[str, Any], licence: str) -> list[tuple[str, Any]]:
    versions = run.get("versions") or {}
    models = ", ".join(f"{role}: {model['model']}" for role, model in data["models"].items())
    return [
        ("licence", licence or "not named"),
        ("models", models),
        ("seed of all random choices", run.get("seed")),
        *_contamination(run, data),
        ("begun", (run.get("all_commands") or {}).get("since") or run.get("started")),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]


def _contamination(run: dict[str, Any], data: dict[str, Any]) -> list[tuple[str, Any]]:
    """How much of what was made had evaluation prompts in it, and which were looked for."""
    blocks = [block for step in run["steps"] for block in step.get("blocks") or [] if block.get("block") == _FILTER]
    if not blocks:
        return [("evaluation prompts", "not looked for")]
    steps = [block for step in data.get("steps") or [] for block in step.get("blocks", [step])]
    files = ", ".join(str(name) for step in steps for name in step.get("against", ()))
    looked = sum(block.get("in", 0) for block in blocks)
    dropped = sum(sum((block.get("dropped") or {}).values()) for block in blocks)
    share = f"{dropped / looked:.2%}" if looked else "none"
    return [("evaluation prompts", f"{dropped} of {looked} records ({share}) shared words with {files}; left out")]


def _counts(run: dict[str, Any]) -> str:
    lines = ["| step | in | out | dropped |", "|---|---|---|---|"]
    for step in run["steps"]:
        reasons = ", ".join(f"{reason} {number}" for reason, number in (step.get("dropped") or {}).items())
        lines.append(f"| {_cell(step['name'])} | {step.get('in', 0)} | {step.get('out', 0)} | {_cell(reasons)} |")
    return "\n".join(lines) + "\n"


def _use(layout: str, name: str) -> str:
    if layout == "verifiers":
        dashed = name.replace("_", "-")
        shell = f"pip install -e .\nvf-eval {dashed} --env.agent.runtime.type subprocess -m MODEL\n"
        made = _fenced(f"from {name} import load_environment\n\nenvironment = load_environment()\n", "python")
        return f"{_fenced(shell, 'sh')}\n{made}\nThe functions run in autoif-blocks' sandbox, on Linux.\n"
    text = _fenced(
        'from datasets import load_dataset\n\ntrain = load_dataset("PATH_OR_REPO", split="train")\n', "python"
    )
    if layout == "messages":
        text += "\nTRL's `SFTTrainer` takes it as it is.\n"
    if layout == "dpo":
        text += (
            "\nTRL's `DPOTrainer` takes it as it is: a conversational preference data set with an explicit prompt.\n"
        )
    if layout in _LLAMA_FACTORY:
        entry = {"file_name": "data/train.jsonl", **_LLAMA_FACTORY[layout]}
        text += f"\nFor LLaMA-Factory, in `dataset_info.json`:\n\n{_fenced(_json({one_line(name): entry}), 'json')}"
    return text


def _fenced(text: str, language: str) -> str:
    """A block of code, whatever runs of backticks it holds."""
    text = "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _cell(value: object) -> str:
    return _words(value, 300)


def _words(value: object, room: int = 100) -> str:
    """Somebody's text within Markdown, where no character of it is more than a character."""
    return re.sub(r"[\\`*{}\[\]<>()#!|~&]", lambda mark: f"&#{ord(mark[0])};", one_line(str(value), room))


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
