"""The report in a real browser, as its reader sees it: headless Chromium, driven by Selenium.

`.ci/run` installs both and runs these tests; by hand: `apt-get install chromium chromium-driver; pip install selenium`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_report import HOSTILE, hostile_run

from autoif_blocks.recipe import Recipe
from autoif_blocks.report import report
from autoif_blocks.run import RunOptions

pytestmark = [pytest.mark.heavy, pytest.mark.browser]

FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --window-size=1280,1000
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += ["selenium"] if find_spec("selenium") is None else []
    if missing:
        said = f"{' and '.join(missing)} not installed: see the head of this file"
        pytest.fail(said) if os.environ.get("AUTOIF_BROWSER") == "required" else pytest.skip(said)


class Reader:
    """A browser with a page open, and what its reader does."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))

    def open(self, page: Path, dark: bool = False) -> float:
        """Opens a page; returns the seconds until it can be used."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        began = time.monotonic()
        self.driver.get(page.as_uri())
        assert self.js("return document.documentElement.dataset.ready") == "true"
        return time.monotonic() - began

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def focus(self) -> str:
        return str(self.js("return document.activeElement.tagName + '#' + document.activeElement.id"))

    @property
    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(tmp_path_factory.mktemp("profile"))
    yield reader
    reader.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run of the ten steps."""
    out = tmp_path_factory.mktemp("run")
    n = "steps.augment_instructions.self_instruct.n=4"
    Recipe.load(ROOT / "autoif.yaml", [f"output_dir={out}", n]).run(RunOptions(limit=12))
    found = report(out)
    assert found.stat().st_size < 3_000_000
    return found


def test_it_renders_without_a_complaint_and_without_the_network(reader: Reader, page: Path) -> None:
    reader.open(page)
    charts = reader.js(
        "return [...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('svg rect').length)"
    )
    assert len(charts) == 11
    assert min(charts) > 0, "every chart has drawn something"
    assert reader.js("return document.documentElement.scrollWidth <= innerWidth")
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith("file:")] == []
    run = json.loads((page.parent / "run.json").read_text())
    for step in run["steps"]:
        assert f"{step['number']} {step['name']}" in reader.text("#funnel")
    assert str(run["records"]) in reader.text(".figures")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_search_filter_and_drill_down(reader: Reader, page: Path) -> None:
    reader.open(page)
    rows = [json.loads(line) for line in (page.parent / "score_filter.jsonl").read_text().splitlines()]
    row = rows[len(rows) // 2]
    reader.driver.find_element("id", "search").send_keys(row["id"])
    assert reader.text("#count") == "1 record"
    reader.driver.find_element("css selector", "#list button").click()
    shown = reader.text("#record")
    texts = (
        "survived all steps", row["instruction"], *row["functions"], "back_translations", row["query"], row["response"],
        "functions say", "pass_rate", *row["score_answers"],
    )  # fmt: skip
    assert [text for text in texts if flat(text) not in flat(shown)] == []
    reader.js("document.querySelector('#search').value = ''")
    link = reader.driver.find_element("link text", "failed_verification")
    reader.js("arguments[0].scrollIntoView({block: 'center'})", link)
    link.click()
    dropped = [json.loads(line) for line in (page.parent / "dropped/query_verification.jsonl").read_text().splitlines()]
    failed = {row["id"] for row in dropped if row["reason"] == "failed_verification"}
    assert reader.text("#count") == f"{len(failed)} records"
    reader.driver.find_elements("css selector", "#list button")[0].click()
    assert "Dropped at step 7 query_verification: failed_verification" in reader.text("#record")
    assert "functions accept it" in reader.text("#record")
    assert reader.js("return document.querySelectorAll('#record summary .no').length") > 0
    assert reader.complaints == []


def test_it_can_be_used_with_the_keyboard_alone(reader: Reader, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    reader.open(page)
    reader.press(Keys.TAB)
    assert reader.js("return document.activeElement.className") == "skip"
    reader.press(Keys.ENTER)
    assert reader.focus() == "SECTION#records"
    reader.press("/")
    assert reader.focus() == "INPUT#search"
    reader.press("the", Keys.TAB, Keys.TAB, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert reader.js("return document.activeElement === document.querySelectorAll('#list button')[1]")
    reader.press(Keys.ENTER)
    assert reader.focus() == "ARTICLE#record"
    reader.press(Keys.ESCAPE)
    assert reader.js("return document.activeElement.getAttribute('aria-current')") == "true"
    reader.js("document.querySelector('#search').focus(); document.querySelector('#search').value = ''")
    unnamed = reader.js("""
        return [...document.querySelectorAll('button, input, select, a[href], summary')]
            .filter(e => !(e.innerText || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)
    """)
    assert unnamed == []
    assert reader.js("return document.querySelector('h1') && document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read_in_light_and_dark(reader: Reader, page: Path, dark: bool) -> None:
    """Contrast of at least 4.5 to 1 (WCAG AA), as the browser has computed the colours."""
    reader.open(page, dark)
    ratios = reader.js("""
        const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
                .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (e) => {
            while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
            return light(getComputedStyle(e ?? document.body).backgroundColor);
        };
        document.querySelectorAll('#list button')[0].click();
        const words = 'h1, h2, .meta, .state, figcaption p, td, th, a, #list b, #list small, #record span, #record p';
        return [...document.querySelectorAll(words)].filter(e => e.innerText).map(e => {
            const [a, b] = [light(getComputedStyle(e).color), ground(e)].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        });
    """)
    assert len(ratios) > 100
    assert min(ratios) >= 4.5
    paper = reader.js("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(18, 19, 22)") == dark
    fills = reader.js("return getComputedStyle(document.querySelector('[data-chart=funnel] rect')).fill")
    assert (fills == "rgb(126, 166, 244)") == dark


def test_hostile_records_stay_text(reader: Reader, tmp_path: Path) -> None:
    made = report(hostile_run(tmp_path / "o"))
    reader.open(made)
    reader.driver.find_element("id", "search").send_keys("onerror")
    for at in range(reader.js("return document.querySelectorAll('#list button').length")):
        reader.driver.find_elements("css selector", "#list button")[at].click()
        assert HOSTILE[1] in reader.text("#record")
    reader.js("const s = document.querySelector('#search'); s.value = ''; s.dispatchEvent(new Event('input'))")
    for button in reader.driver.find_elements("css selector", "#list button"):
        button.click()
    assert reader.js("return document.querySelectorAll('main img, main script, main iframe').length") == 0
    assert "owned" not in reader.driver.title.replace("document.title='owned'", "")
    assert reader.js("return /[\\u0000\\u001b\\u202e]/.test(document.body.innerText)") is False
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith("file:")] == []


RECORDS = 100_000


def large_run(folder: Path) -> Path:
    """What a run with so many responses leaves, written by hand."""
    names = ["instructions", "checked", "answered", "verified", "scored", "kept"]
    counts: dict[str, list[int]] = {name: [0, 0] for name in names}
    (folder / "dropped").mkdir(parents=True)
    files = {name: (folder / f"{name}.jsonl").open("w") for name in names}
    dropped = {name: (folder / "dropped" / f"{name}.jsonl").open("w") for name in names}
    code = [f"def evaluate(response):\n    return len(response) > {n}\n" for n in range(4)]
    cases = [{"input": f"case {n} " + "word " * 12, "output": n % 2 == 0} for n in range(20)]

    def keep(name: str, row: dict[str, Any]) -> None:
        counts[name][0] += 1
        files[name].write(json.dumps(row) + "\n")

    for n in range(RECORDS // 32):
        row: dict[str, Any] = {
            "id": f"{n * 7919 % 65536:020x}",
            "instruction": f"Write at least {n} words about {n % 97}.",
        }
        keep("instructions", row)
        keep("checked", {**row, "functions": code, "cases": cases, "case_verdicts": [[c["output"] for c in cases]] * 4})
    for n in range(RECORDS):
        parent = n % (RECORDS // 32)
        row = {
            "id": f"{n:020x}a", "instruction": f"Write at least {parent} words about {parent % 97}.", "functions": code,
            "made_from": [f"{parent * 7919 % 65536:020x}"], "query": f"What about {n}?",
            "response": f"{n} is " + "so " * 60,
        }  # fmt: skip
        keep("answered", row)
        if n % 3 == 0:
            counts["verified"][1] += 1
            reason = "odd" if n == 99_999 else "failed_verification"
            drop = {
                "id": row["id"],
                "step": "verified",
                "block": "V",
                "reason": reason,
                "detail": "0 of 4",
                "record": row,
            }
            dropped["verified"].write(json.dumps(drop) + "\n")
            continue
        row |= {"pass_rate": 1.0, "verdicts": [True] * 4}
        keep("verified", row)
        row |= {"score": float(n % 11), "score_answers": [f"Score: {n % 11}"]}
        keep("scored", row)
        if row["score"] > 5:
            keep("kept", row)
        else:
            counts["kept"][1] += 1
            drop = {"id": row["id"], "reason": "score_not_> 5", "detail": "low", "record": row}
            dropped["kept"].write(json.dumps(drop) + "\n")
    for file in (*files.values(), *dropped.values()):
        file.close()
    steps = [
        {"name": name, "number": n, "file": f"{name}.jsonl", "in": sum(counts[name]), "out": counts[name][0],
         "dropped": {"failed_verification": counts[name][1]} if counts[name][1] else {}}
        for n, name in enumerate(names, 1)
    ]  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"state": "completed", "steps": steps}))
    return folder


def test_a_run_of_100000_records_opens_in_three_seconds(reader: Reader, tmp_path: Path) -> None:
    out = large_run(tmp_path / "large")
    began = time.process_time()
    made = report(out)
    made_in = time.process_time() - began
    size = made.stat().st_size
    opened = min(reader.open(made) for _ in range(3))
    began = time.monotonic()
    reader.driver.find_element("id", "search").send_keys("99")
    searched = time.monotonic() - began
    print(f"made in {made_in:.1f} s of CPU, {size / 1e6:.2f} MB, opens in {opened:.2f} s, searches in {searched:.2f} s")
    assert size < 3_000_000
    assert opened < 3
    assert searched < 1
    assert "of 103" in reader.text("#records"), "the rule of the sample is told"
    assert "verified: odd (1)" in reader.js("return document.getElementById('end').innerText"), "each reason is shown"
    assert reader.complaints == []
