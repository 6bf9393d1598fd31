"""The live view's frames at every size, the lines without a terminal, and the estimate of a run's end."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import AUTOIF, SMALL, Bench, FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import recorded
from rich.cells import cell_len
from rich.console import Console

from autoif_blocks.accounting import Meter
from autoif_blocks.errors import StopRun
from autoif_blocks.limits import ServerHealth
from autoif_blocks.progress import SHARE, ConsoleListener, JsonListener, show
from autoif_blocks.progress.estimate import Estimator, Layout, Progress
from autoif_blocks.progress.figures import Figures, StepFigures, Watch, layout, lines_of
from autoif_blocks.progress.lines import about
from autoif_blocks.progress.view import frame
from autoif_blocks.recipe import Recipe
from autoif_blocks.run import RunOptions
from autoif_blocks.state import RunState, StepCounts
from autoif_blocks.stopping import every
from autoif_blocks.warned import LastWarning

RECORDED = Path(__file__).with_name("recorded_run.json")
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\r\nline 2\tç 漢字 👩‍💻"


def meter(**counts: Any) -> Meter:
    """A meter's counts by name, those of this moment too."""
    made = Meter()
    for name, value in counts.items():
        setattr(made, name, Counter(value) if isinstance(value, dict) else value)
    return made


def figures(names: Sequence[str], **changes: Any) -> Figures:
    """A run in which the first half of the steps has records in hand."""
    steps = []
    for at, name in enumerate(names):
        busy = 2 * at < len(names)
        counts = meter(
            taken=1000 * busy, given=600 * busy, dropped={"cut_off": 100 * busy}, requests=900 * busy,
            in_flight=12 * busy, hits=50 * busy, completions=150 * busy, cost=1.5 * busy,
        )  # fmt: skip
        steps.append(StepFigures(at + 1, name, counts, 33.3 * busy, 4567.8 * busy))
    servers = [("teacher", ServerHealth("http://gpu1:8000/v1", 12, 64, 64))]
    found = Figures(75.0, steps, Progress(0.4, 130.0), None, {}, [("a", "cut_off", 100)], servers, None)
    return replace(found, **changes)


def drawn(found: Figures, width: int, height: int, utf8: bool = True) -> list[str]:
    return [str(line) for line in frame(found, width, height, utf8).renderables]


TEN = [f"step_with_a_name_{number}" for number in range(10)]


def test_a_frame_has_all_that_there_is_to_see() -> None:
    now = time.time()
    servers = [
        ("teacher", ServerHealth("http://gpu1:8000/v1", 12, 64, 64)),
        ("teacher", ServerHealth("http://gpu2:8000/v1", 3, 32, 64)),
        ("judge", ServerHealth("http://gpu3:8000/v1", 0, 64, 64, now + 20)),
        ("judge", ServerHealth("http://gpu4:8000/v1", 0, 64, 64, dead="401: wrong key")),
    ]
    reasons = [("a", "cut_off", 70), ("b", "no_code", 30)]
    found = figures(TEN, servers=servers, reasons=reasons, warning=(now - 65, "going on without it"))
    bar, head, *rows = drawn(found, 120, 40)
    assert bar.startswith("━" * 16 + "─")
    assert bar.endswith("40%  ETA about 2 min  1 min 15 s gone")
    assert head.split() == ["step", "in", "out", "dropped", "flight", "req/s", "tok/s", "cost", "hit"]
    assert rows[0].split()[2:] == ["1000", "600", "100", "12", "33.3", "4568", "1.50", "25%"]
    assert rows[9].split() == ["10", TEN[9], "0", "0", "0"]
    assert rows[10:] == [
        "teacher · gpu2:8000/v1 · 3 in flight, at most 32 of 64",
        "judge · gpu3:8000/v1 · failing, passed over for 20 s",
        "judge · gpu4:8000/v1 · out of use: 401: wrong key",
        "teacher · gpu1:8000/v1 · 12 in flight, at most 64",
        "dropped: cut_off 70 (a), no_code 30 (b)",
        "warning 1 min 05 s ago: going on without it",
        "Ctrl-C stops; the same command continues",
    ]
    aimed = drawn(figures(TEN, accepted=(30, 120), budget={"cost": (1.5, 20.0)}), 120, 40)[0]
    assert aimed.startswith("━" * 9 + "─")
    assert "accepted 30 of 120  ETA about 2 min" in aimed
    assert aimed.endswith("budget left: 1.50 of 20 cost")
    assert "?%  ETA ?" in drawn(figures(TEN, progress=Progress()), 120, 40)[0]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, "step in out dropped flight req/s tok/s cost hit"),
        (67, "step in out dropped flight req/s tok/s cost hit"),
        (61, "step in out dropped flight req/s tok/s hit"),
        (55, "step in out dropped flight req/s hit"),
        (50, "step in out dropped flight req/s"),
        (44, "step in out dropped flight"),
        (36, "step in out dropped"),
        (30, "step out dropped"),
        (21, "step out"),
        (10, "step out"),
    ],
)
def test_narrow_terminals_drop_columns(width: int, columns: str) -> None:
    assert drawn(figures(TEN), width, 40)[1].split() == columns.split()


def test_small_terminals_keep_the_steps_that_are_at_work() -> None:
    warned = figures([f"s{n}" for n in range(30)], warning=(time.time(), "look"))
    assert len(drawn(warned, 80, 50)) == 1 + 31 + 4
    small = drawn(warned, 80, 10)
    assert len(small) == 10
    assert [line.split()[1] for line in small[1:8]] == [f"s{n}" for n in range(7)]
    assert small[8] == "… 23 more"
    assert small[9].startswith("warning")  # trouble stays when all else makes room
    assert drawn(warned, 80, 3)[0].startswith("━")
    assert len(drawn(warned, 80, 1)) == 1


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=40),
    words=st.text(max_size=300), width=st.integers(1, 240), height=st.integers(1, 70), utf8=st.booleans(),
)  # fmt: skip
def test_a_frame_fits_and_steers_no_terminal(names: list[str], words: str, width: int, height: int, utf8: bool) -> None:
    sick = [(words, ServerHealth(words, 1, 1, 2, dead=NASTY + words))]
    found = figures(names, servers=sick * 9, warning=(0.0, NASTY + words), reasons=[(words, NASTY, 3)], accepted=(3, 2))
    text = drawn(found, width, height, utf8)
    assert 1 <= len(text) <= height
    for line in text:
        assert cell_len(line) <= width
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2028" for char in line)
        assert utf8 or line.isascii()


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed() -> None:
    shown = drawn(figures(["a"], warning=(0.0, NASTY)), 200, 20)[-2]
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\x0d line 2 ç 漢字" in shown
    listener = ConsoleListener()
    listener.console = Console(file=(file := io.StringIO()), force_terminal=True, width=80, highlight=False)
    listener.note(f"a server says {NASTY}")
    assert r"a server says \x1b]0;owned\x07\x1b[2J" in file.getvalue()
    assert "\x1b" not in file.getvalue()


TIMES = [
    (0, "5 s"), (7.6, "10 s"), (61, "60 s"), (87, "85 s"), (88, "2 min"), (725, "12 min"), (5699, "1 h 40 min"),
    (7200, "2 h"), (26_000, "7 h 10 min"),
]  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), TIMES)
def test_an_estimate_does_not_look_exact(seconds: float, text: str) -> None:
    assert about(seconds) == f"about {text}"


# The estimate


def test_the_end_of_a_recorded_run_is_foreseen() -> None:
    known, looks = recorded(RECORDED)
    end = looks[-1][0]
    estimator = Estimator(known)
    found = [(at, estimator.look(at, steps)) for at, steps in looks]
    shares = [progress.share or 0.0 for _, progress in found]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    late = [(at, progress.left) for at, progress in found if 0.2 * end <= at < end]
    good = [at for at, left in late if left is not None and 0.5 <= left / (end - at) <= 2]
    assert len(good) >= 0.8 * len(late)
    middle = [left / (end - at) for at, left in late if left is not None and 0.3 * end < at < 0.9 * end]
    assert len(middle) > 50
    assert min(middle) > 0.65
    assert max(middle) < 1.5


def chain(*meters: Meter) -> list[StepCounts]:
    return [StepCounts(f"s{at}", at + 1, "", [(f"B{at}", one)]) for at, one in enumerate(meters)]


def run_of(total: int, pace: float, yields: float = 1.0, seconds: float = 60.0) -> Iterator[tuple[float, Any]]:
    """A reader, and a block that asks for `pace` records a second."""
    for at in range(1, round(2 * seconds) + 1):
        done = min(total, round(pace * at / 2))
        read = meter(created=total, given=total)
        asked = meter(
            taken=total, given=round(yields * done), dropped={"x": done - round(yields * done)}, requests=done + 5,
            in_flight=5, completions=done, busy=2.0 * done, worked=done, latency={"4": done},
        )  # fmt: skip
        yield at / 2, chain(read, asked)


KNOWN = {"sources": {("s0", "B0"): 1000}, "pools": {("s1", "B1"): "teacher"}}


def test_nothing_is_said_before_it_is_founded() -> None:
    estimator = Estimator(Layout(**KNOWN))  # type: ignore[arg-type]
    said = [(at, estimator.look(at, steps).left) for at, steps in run_of(1000, 10)]
    assert all(left is None for at, left in said if at < 10)
    assert all(left == pytest.approx(100 - at, rel=0.1) for at, left in said if at > 12)
    # A block that records wait for and that has settled none: it may be any time.
    waiting = chain(meter(created=9, given=9), meter(taken=9, requests=9, in_flight=9))
    for at in range(30):
        assert Estimator(Layout()).look(at, waiting) == Progress()
    # One that answers for all records together: it goes on giving while it is asked.
    together = chain(meter(created=9, given=9), meter(taken=9, given=9, requests=4, in_flight=2, latency={"4": 2}))
    assert Estimator(Layout()).look(60.0, together) == Progress()


def test_the_slowest_pool_decides() -> None:
    """Two models side by side: one will have done its work long before the other."""
    estimator = Estimator(Layout({("s0", "B0"): 400}, {("s1", "B1"): "teacher", ("s2", "B2"): "judge"}))
    left = None
    for at in range(1, 41):
        first, second = min(400, 20 * at), 4 * at
        left = estimator.look(
            at,
            chain(
                meter(created=400, given=400),
                meter(taken=400, given=first, requests=first, completions=first, busy=first, latency={"4": first}),
                meter(taken=first, given=second, requests=second, completions=second, busy=second,
                      latency={"4": second}),
            ),
        ).left  # fmt: skip
    assert left == pytest.approx(60, rel=0.1)


def test_a_target_that_the_round_will_not_reach_has_no_end_yet() -> None:
    for target, founded in ((400, True), (600, False)):
        estimator = Estimator(Layout(target=target, **KNOWN))  # type: ignore[arg-type]
        said = [estimator.look(at, steps) for at, steps in run_of(1000, 10, yields=0.5)]
        assert (said[-1].left is not None) == founded
        assert said[-1].share == pytest.approx(300 / target)


def test_an_end_that_proves_wrong_is_withdrawn() -> None:
    estimator = Estimator(Layout(**KNOWN))  # type: ignore[arg-type]
    for at, steps in run_of(1000, 10, seconds=20):
        before = estimator.look(at, steps)
    assert before.left is not None
    for _, steps in run_of(1000, 10, seconds=20):
        last = steps
    # From now on nothing is answered.
    later = [estimator.look(float(at), last).left for at in range(21, 300)]
    assert later[-1] is None


# What is read of a run


def test_sources_are_lines_and_no_more_than_the_limit(bench: Bench, tmp_path: Path) -> None:
    recipe = Recipe.load(bench.recipe("  - {name: r, block: respond, n: 1, prompt: 'a'}\n", [{"number": 1}] * 30))
    found = layout(recipe, recipe.steps)
    assert found == Layout({("given", "ReadJsonl"): 30}, {("r", "Respond"): "teacher"})
    assert layout(recipe, recipe.steps, 7).sources == {("given", "ReadJsonl"): 7}
    path = tmp_path / "lines"
    for text, count in (("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2)):
        path.write_text(text)
        assert lines_of(path) == count


def test_a_server_is_shown_as_all_tasks_see_it(bench: Bench, tmp_path: Path) -> None:
    recipe = Recipe.load(bench.recipe("  - {name: r, block: respond, n: 1, prompt: 'a'}\n", [{"number": 1}]))
    state = RunState(tmp_path / "work", recipe.steps)
    stage = tmp_path / "work" / "stage-0"
    stage.mkdir(parents=True)

    def tell(task: int, *servers: ServerHealth, warning: Any = None) -> None:
        rows = [["r", 0, "Respond", meter(taken=5, requests=3).to_dict()]]
        told = {"finished": not servers, "meters": rows, "passing": [[2, 1]], "warning": warning}
        told["servers"] = [["teacher", *astuple(server)] for server in servers]
        (stage / f"{task:05d}.status.json").write_text(json.dumps(told))

    watch = Watch(state, recipe, recipe.steps)
    tell(0, ServerHealth("http://a", 2, 21, 21), warning=[5.0, "older"])
    tell(1, ServerHealth("http://a", 3, 10, 21, 99.0, "gone"), warning=[9.0, "newer"])
    both = watch.look()
    assert both.servers == [("teacher", ServerHealth("http://a", 5, 47, 64, 99.0, "gone"))]
    assert (both.in_flight, both.requests, both.steps[1].meter.worked) == (4, 6, 2)
    assert both.warning == (9.0, "newer")
    tell(1)  # it is finished, and the third has not begun: the first is still asked as hard as it may be
    assert watch.look().servers == [("teacher", ServerHealth("http://a", 2, 64, 64))]


def test_requests_in_batches_are_not_shown_against_the_limit_of_live_ones(bench: Bench, tmp_path: Path) -> None:
    path = bench.recipe("  - {name: r, block: respond, n: 1, prompt: 'a'}\n", [{"number": 1}])
    recipe = Recipe.load(path, ["models.teacher.mode=batch"])
    (tmp_path / "work" / "stage-0").mkdir(parents=True)
    server = ServerHealth("http://a", 900, 40_000, 40_000)
    told = {"finished": False, "meters": [], "servers": [["teacher", *astuple(server)]]}
    (tmp_path / "work" / "stage-0" / "00000.status.json").write_text(json.dumps(told))
    assert Watch(RunState(tmp_path / "work", recipe.steps), recipe, recipe.steps).look().servers == [
        ("teacher", server)
    ]


def test_the_last_warning_is_kept_and_goes_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("autoif_blocks.client")
    with LastWarning() as outer, LastWarning() as inner:
        log.warning("going on without %s", "it")
        log.info("nothing")
    log.warning("nobody listens")
    assert outer.last is not None
    assert outer.last[1] == "going on without it"
    assert inner.last == outer.last
    assert capsys.readouterr().err.count("WARNING: going on without it") <= 1


# Without a terminal


def test_without_a_terminal_it_is_lines_now_and_then(bench: Bench, model: FakeModel) -> None:
    def answer(prompt: str) -> Any:
        return 400 if "3" in prompt else "yes"

    model.answer, model.latency = answer, 0.5
    listener = ConsoleListener()
    listener.console = Console(file=(file := io.StringIO()), width=200)
    recipe = Recipe.load(
        bench.recipe("  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n", ROWS, "flush_interval: 0.05")
    )
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoif_blocks.progress.PLAIN_INTERVAL", 0.2)
        show(recipe, RunOptions(listener=listener), listener)
    said = [line for line in file.getvalue().splitlines() if "out by step" in line]
    assert 1 <= len(said) <= (time.monotonic() - began) / 0.2 + 1
    assert "ETA ?" in said[0]
    assert re.search(r"requests [1-9]\d* \([1-9]\d*/s\)", said[-1])
    assert "\x1b" not in file.getvalue()


ROWS = [{"number": number} for number in range(40)]
FIELDS = {
    "number", "name", "in", "created", "out", "dropped", "in_flight", "requests", "requests_per_second",
    "tokens_per_second", "cost", "hits", "hit_rate",
}  # fmt: skip


def test_json_lines_tell_of_a_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autoif_blocks", "run", str(AUTOIF), *SMALL, "--end-step", "2", "--json"]
    done = subprocess.run([*command, "--output-dir", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["event"] for row in told if row["event"] != "progress"] == ["started", "ended"]
    assert told[0]["steps"][:2] == ["augment_instructions", "verification_funcs_cases"]
    last = told[-2]
    assert set(last) == {"event", "seconds", "share", "eta", "steps", "servers", "warning"}
    assert all(set(step) == FIELDS for step in last["steps"])
    run = json.loads((tmp_path / "run.json").read_text())
    assert [step["out"] for step in last["steps"]] == [step["out"] for step in run["steps"]]
    assert last["share"] == 1.0
    assert told[-1]["state"] == "completed"
    assert told[-1]["totals"] == run["totals"]


def test_json_tells_how_a_run_failed(capsys: pytest.CaptureFixture[str], bench: Bench, model: FakeModel) -> None:
    model.answer = lambda prompt: 401
    recipe = Recipe.load(bench.recipe("  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n", ROWS))
    listener = JsonListener()
    with pytest.raises(StopRun):
        show(recipe, RunOptions(listener=listener), listener)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (told[-1]["event"], told[-1]["state"]) == ("ended", "failed")
    assert "401" in told[-1]["failure"]


@pytest.mark.heavy
def test_a_reader_of_json_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    run = (
        f"{sys.executable} -m autoif_blocks run {AUTOIF} {' '.join(SMALL)} --end-step 1 --json --output-dir {tmp_path}"
    )
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {run} | true"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "completed"


# What it costs


@contextmanager
def terminal() -> Iterator[Console]:
    """A console on a terminal that somebody reads."""
    ours, theirs = pty.openpty()
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
    os.close(ours)
    with open(theirs, "w") as file:  # noqa: PTH123
        yield Console(file=file, force_terminal=True, width=120, height=50)
    reader.terminate()
    reader.wait()


@pytest.mark.heavy
def test_the_view_takes_little_of_the_processor(tmp_path: Path) -> None:
    """Sixteen tasks of a recipe of ten steps write how far they are; the thread that shows it tells what it took."""
    recipe = Recipe.load(AUTOIF)
    stage = tmp_path / "work" / "stage-0"
    stage.mkdir(parents=True)
    latency = {str(at): 50 for at in range(-8, 24)}
    blocks = [(step.name, at, f"Block{at}") for step in recipe.steps for at in range(3)]
    one = meter(taken=9, given=9, requests=9, latency=latency, dropped={f"reason {n}": n for n in range(9)})
    told = {"finished": False, "meters": [[*block, one.to_dict()] for block in blocks]}
    for task in range(16):
        (stage / f"{task:05d}.status.json").write_text(json.dumps(told))
    with terminal() as console:
        listener = ConsoleListener()
        listener.console = console
        listener.recipe, listener.steps = recipe, list(recipe.steps)
        with listener.watching(RunState(tmp_path / "work", recipe.steps)):
            time.sleep(8)
    assert 0 < listener.spent < 2 * SHARE * 8


def test_blocks_say_when_they_work_ahead(bench: Bench, model: FakeModel) -> None:
    """`worked` is ahead of what has been taken on, and in the end the same."""
    seen: list[Meter] = []

    class Keeper(ConsoleListener):
        @contextmanager
        def watching(self, state: RunState) -> Iterator[None]:
            def look() -> None:
                seen.extend(one for step in state.look().round for _, one in step.blocks if one.requests)

            with every(0.05, look, "keeper"):
                yield
            look()

    model.latency = 0.3
    bench.run("  - {name: r, block: respond, n: 1, prompt: 'say {{ number }}'}\n", ROWS, "flush_interval: 0.05",
              listener=Keeper(quiet=True))  # fmt: skip
    assert (seen[-1].taken, seen[-1].worked, seen[-1].in_flight) == (40, 40, 0)
    assert any(0 < one.in_flight <= 40 for one in seen)
    assert any(one.in_flight and one.worked for one in seen)
