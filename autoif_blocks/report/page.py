"""The page: a jinja template, a style sheet, the scripts and the data, all in one file.

Everything that comes from records, recipes or files is untrusted. It reaches the page in two ways only: through jinja's
escaping, and as JSON in which no character can end the script element; the page's script shows it as text, never as
markup. A content security policy with the hashes of our own scripts stands behind both: whatever slipped through would
not run, and nothing is fetched.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..outputs import whole
from ..plain import plain
from ..records import compact_json

_HERE = Path(__file__).parent
# Inside a string of JSON these say the same. U+2028 and U+2029 end a line in the eyes of some.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "assets/charts.js", "assets/records.js")


def render(data: dict[str, Any]) -> str:
    """The page as text."""
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    environment = Environment(
        loader=FileSystemLoader(_HERE / "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_plain,
    )  # fmt: skip
    environment.filters |= {"count": _count, "percent": _percent, "seconds": _seconds}
    return environment.get_template("report.html.jinja").render(
        data=data,
        json=Markup(as_json(data)),
        style=Markup((_HERE / "assets" / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        policy=f"{_POLICY}; script-src {hashes}",
    )


def as_json(value: Any) -> str:
    """JSON that may stand in a script element."""
    return compact_json(value).decode().translate(_ESCAPES)


def write(path: Path, page: str) -> None:
    """Writes the page whole: aside, then renamed.

    Raises:
        StopRun: it cannot be written.
    """
    with whole(path, "choose another file with -o") as aside:
        aside.write_bytes(page.encode("utf-8", "replace"))


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f") if abs(number) >= 10_000 else f"{number:.0f}"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.1%}" if 0 < share < 0.1 or 0.9 < share < 1 else f"{share:.0%}"


def _seconds(number: float) -> str:
    return f"{number:.2f} s" if number < 10 else f"{number:.0f} s"


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
