"""What a run notes of its own course."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from conftest import Bench

from autoif_blocks.timeline import FILE, rows_since

STEPS = '  - {name: scored, block: judge_score, prompt: "{{ response }}"}\n'


def test_a_run_leaves_how_it_went(bench: Bench) -> None:
    bench.model.answer = lambda prompt: "Score: 3"
    bench.run(STEPS, [{"response": str(n)} for n in range(7)])
    first, *_, last = rows_since(bench.out, 0)
    assert (last["requests"], last["completions"], last["out"]) == (7, 7, 7)
    assert last["busy"] == round(bench.result["totals"]["busy"], 3)
    assert first["at"] <= last["at"]
    bench.run(STEPS, [{"response": str(n)} for n in range(7)])  # a replay: another command, after the first
    assert len({row["began"] for row in rows_since(bench.out, 0)}) == 2
    later = rows_since(bench.out, first["began"] + 0.001)
    assert {row["requests"] for row in later} == {0}


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_is_set_changes_no_duration(jump: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It jumps at every look."""
    looks, real = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(looks) * jump)
    bench.model.answer = lambda prompt: "Score: 3"
    bench.run(STEPS, [{"response": str(n)} for n in range(7)])
    assert 0 < bench.result["seconds"] < 60
    first, *_, last = rows_since(bench.out, -1e12)
    assert 0 < last["at"] - first["at"] < 60


def test_rows_that_are_none_are_passed_over(tmp_path: Path) -> None:
    assert rows_since(tmp_path, 0) == []
    (tmp_path / FILE).parent.mkdir()
    good = dict.fromkeys(("began", "at", "requests", "retries", "completions", "hits", "prompt_tokens", "out"), 1)
    good |= {"completion_tokens": 1, "cost": 0.5, "busy": 2.5}
    lines = [good, {**good, "at": "soon"}, {"began": 1}, [1], {**good, "began": None}]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / FILE).write_bytes(text.encode() + b'\n\xff\n{"began": 1, "a')
    assert rows_since(tmp_path, 0) == [good]
