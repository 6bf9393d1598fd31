"""What the report tells, as plain data: from `run.json`, the step files and the timeline, each read from end to end."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from ..accounting import SPENT
from ..lineage import Files
from ..progress import duration
from ..timeline import rows_since
from .reading import Reading
from .sample import sample

_POINTS = 300  # of the timeline


def collect(files: Files) -> dict[str, Any]:
    """All that the page shows."""
    reading = Reading(files)
    records, most = sample(files, reading.ends)
    ends = sorted(reading.ends)
    run = files.run
    return {
        "output": files.called,
        "run": {key: run.get(key) for key in ("state", "failure", "seed", "limit", "started", "versions", "target")},
        "name": (run.get("recipe") or {}).get("name") or "a run",
        "duration": duration(run.get("seconds") or 0),
        "all": _spent(run.get("all_commands")),
        "totals": _spent(run.get("totals")),
        "models": _models(run),
        "steps": [_step(step) for step in files.steps],
        "table": reading.table(),
        "numbers": reading.numbers(),
        "lengths": reading.lengths(),
        "languages": reading.languages(),
        "functions": reading.functions(),
        "families": reading.families(),
        "timeline": _timeline(files.output, run),
        "ends": [
            {"number": end.number, "step": end.step, "kind": end.kind, "reason": end.reason,
             "count": reading.sizes[end], "shown": min(most, len(reading.ends[end]))}
            for end in ends
        ],
        "most": most,
        "records": records,
    }  # fmt: skip


def _models(run: dict[str, Any]) -> list[str]:
    """What answered, role by role, as the recipe has it: never a key, never an address."""
    models = ((run.get("recipe") or {}).get("data") or {}).get("models")
    named = models.items() if isinstance(models, dict) else ()
    return [f"{role}: {model.get('model')}" for role, model in named if isinstance(model, dict)]


def _spent(found: object) -> dict[str, Any]:
    """What commands have cost; nothing where `run.json` does not tell."""
    known = found if isinstance(found, dict) else {}
    return {name: known.get(name) or 0 for name in ("commands", *SPENT)}


def _step(step: dict[str, Any]) -> dict[str, Any]:
    names = (
        "name", "number", "in", "created", "out", "dropped", "discarded", "unfinished", "requests", "retries", "hits",
        "prompt_tokens", "completion_tokens", "cost", "p50", "p99", "busy",
    )  # fmt: skip
    return {name: step.get(name) or ({} if name in ("dropped", "discarded") else 0) for name in names} | {
        "name": step["name"]
    }


def _timeline(output: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Rates between the rows of the timeline, the pauses between commands left out; nothing if there are none."""
    try:
        since = datetime.fromisoformat((run.get("all_commands") or {})["since"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        since = 0.0
    rows = rows_since(output, since)
    points: list[dict[str, Any]] = []
    clock = 0.0
    step = max(1, len(rows) // _POINTS)
    last: dict[str, Any] | None = None
    for number, row in enumerate(rows):
        if last is None or last["began"] != row["began"]:
            last = row
            continue
        ends = number + 1 == len(rows) or rows[number + 1]["began"] != row["began"]
        passed = row["at"] - last["at"]
        if passed <= 0 or (number % step and not ends) or (ends and passed < 0.5 and points):
            continue
        clock += passed
        rates = {name: (row[name] - last[name]) / passed for name in ("busy", "requests", "out")}
        tokens = (row["completion_tokens"] - last["completion_tokens"]) / passed
        points.append({"t": round(clock, 1), "d": round(passed, 2), "in_flight": round(rates["busy"], 2),
                       "requests": round(rates["requests"], 2), "tokens": round(tokens, 1),
                       "out": round(rates["out"], 3)})  # fmt: skip
        last = row
    return {"points": points} if points else {}
