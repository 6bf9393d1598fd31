"""What makes two runs the same run: decides whether a directory's results may be continued or would be overwritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RecipeError
from .plain import one_line

if TYPE_CHECKING:
    from .recipe import Recipe

# Where and how fast a recipe runs changes no record; what is asked, of which model, does.
_PLACE_AND_PACE = {
    "output_dir", "cache_dir", "cache", "executor", "flush_interval", "budget", "name", "target", "shards",
    "work_dir", "send_interval",
}  # fmt: skip
_MODEL_PACE = {
    "base_url", "api_key", "max_concurrency", "max_n", "timeout", "connect_patience", "max_retries", "max_retry_wait",
    "serve", "tp", "dp", "pp", "context", "serve_options", "start_timeout",
    "price", "adaptive", "rpm", "tpm", "first_byte_timeout", "read_timeout", "connect_timeout", "hedge",
    "mode", "batch_requests", "batch_wait", "batch_poll",
}  # fmt: skip
_SANDBOX_PACE = {"workers", "preload", "isolation"}


def identity(recipe: Recipe) -> dict[str, Any]:
    """A flat dictionary of everything that shapes the results: `steps.score_filter.value: > 7`, files by content."""
    data = {key: value for key, value in recipe.data.items() if key not in _PLACE_AND_PACE}
    data["seed"] = recipe.seed
    models = data.pop("models", None) or {}
    data["models"] = {name: {k: v for k, v in model.items() if k not in _MODEL_PACE} for name, model in models.items()}
    data["sandbox"] = {k: v for k, v in (data.get("sandbox") or {}).items() if k not in _SANDBOX_PACE}
    # A recipe may be run from anywhere: its files count by content, in the places where they are named.
    files = {name: file_of(path) for name, path in recipe.inputs.items()}
    found: dict[str, Any] = {}
    for key, value in flatten(data, ""):
        if isinstance(value, list):
            value = [recipe.inputs[item].name if isinstance(item, str) and item in files else item for item in value]
        found[key] = files.get(value, value) if isinstance(value, str) else value
    # What a pattern has found stands in no place.
    matched = sorted({*files.values()} - {value for value in found.values() if isinstance(value, str)})
    return found | ({"files that match": ", ".join(matched)} if matched else {})


def file_of(path: Path) -> str:
    """A file's name and what it holds, in short."""
    return f"the file {path.name} {blake2b(path.read_bytes(), digest_size=8).hexdigest()}"


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        names = [item.get("name", item.get("block")) if isinstance(item, dict) else item for item in value]
        before: Counter[str] = Counter()
        for number, item in enumerate(value, start=1):
            name = str(item.get("name", item.get("block", number)) if isinstance(item, dict) else number)
            before[name] += 1  # a block may stand twice in a step
            yield from flatten(item, f"{path}.{name}" if before[name] == 1 else f"{path}.{name} ({before[name]})")
        yield f"{path}.(order)", names
    else:
        yield path, value


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, a line each."""
    changed = sorted(key for key in {*was, *now} if was.get(key) != now.get(key))
    return [f"{key}: {short(was.get(key))} -> {short(now.get(key))}" for key in changed]


def changed_since(was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """What to say where a command that did not come to its end was of another identity; its results, if it has left
    any, are `refuse_to_overwrite`'s matter."""
    told = changes(was or now, now)
    if not told:
        return None
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return f"changed since the last command here: {'; '.join(told[:3])}{more}. What still fits is replayed"


def refuse_to_overwrite(
    place: str, earlier: Mapping[str, Any], now: Mapping[str, Any], limit: int | None, target: int | None
) -> None:
    """Compares a finished run's identity with that of the run to come. Its `target` is 0 if it has none, None if it
    does not run what the earlier one had grown.

    Raises:
        RecipeError: they differ, so that the files there would be replaced by others.
    """
    told = changes(earlier.get("identity", {}), now)
    earlier_limit = earlier.get("limit")
    if limit is not None and (earlier_limit is None or limit < earlier_limit):
        told.append(f"--limit: {earlier_limit or 'none'} -> {limit}")
    wanted = earlier.get("target", {}).get("wanted", 0)
    if target is not None and target < wanted:
        told.append(f"target: {wanted} -> {target or 'none'}")
    if told:
        more = f"\n  … and {len(told) - 8} more" if len(told) > 8 else ""
        raise RecipeError(
            f"{place} holds the results of a different run:\n  " + "\n  ".join(told[:8]) + more + "\n"
            "Use another --output-dir, or --overwrite to replace them (completions that still fit are replayed)."
        )


def short(value: Any) -> str:
    return one_line(str(value), 60) if value is not None else "(absent)"
