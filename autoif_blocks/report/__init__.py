"""`autoif report`: a run's output directory as one HTML page that opens anywhere, offline.

`reading.py` reads the step files, `measures.py` has the arithmetic, `sample.py` chooses the records that the page
carries, `collect.py` puts them together with `run.json`, `page.py` writes the page from `assets/`. The charts are drawn
in the reader's browser by Observable Plot (on D3), both embedded from `vendor/`; each has a table that needs no script.
"""

from __future__ import annotations

from pathlib import Path

from ..lineage import Files
from ..storage import is_url
from .collect import collect
from .page import render, write

FILE = "report.html"


def report(output: str | Path, target: Path | None = None) -> Path:
    """Writes the report of an output directory; returns where it is, `report.html` in that directory by default. That
    of a remote one, named by its URL, is written into the current folder: only a run changes a remote place.

    Raises:
        RecipeError: the directory holds no run.
        StopRun: the file cannot be written, or a remote directory cannot be read.
    """
    files = Files.at(output)
    target = target or (Path(FILE) if is_url(files.called) else files.output / FILE)
    write(target, render(collect(files)))
    return target
