"""`autoif report`: a run's output directory as one HTML page that opens anywhere, offline.

`reading.py` reads the step files, `measures.py` has the arithmetic, `sample.py` chooses the records that the page
carries, `collect.py` puts them together with `run.json`, `page.py` writes the page from `assets/`. The charts are drawn
in the reader's browser by Observable Plot (on D3), both embedded from `vendor/`; each has a table that needs no script.
"""

from __future__ import annotations

from pathlib import Path

from ..lineage import Files
from .collect import collect
from .page import render, write

FILE = "report.html"


def report(output: Path, target: Path | None = None) -> Path:
    """Writes the report of an output directory; returns where it is, `report.html` in that directory by default.

    Raises:
        RecipeError: the directory holds no run.
        StopRun: the file cannot be written.
    """
    files = Files(output)
    target = target or output / FILE
    write(target, render(collect(files)))
    return target
