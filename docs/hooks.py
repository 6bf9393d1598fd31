"""What the pages take from the code while the site is built, so that it cannot get stale.

mkdocs calls `on_page_markdown` (`hooks:` in mkdocs.yml). A page says where with a comment of its own line, such as
`<!-- made: blocks -->`; `MADE` has what there is.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from autoif_blocks import client
from autoif_blocks.blocks import BLOCKS
from autoif_blocks.cli import cli
from autoif_blocks.describe import argument_helps, fields_of, summary
from autoif_blocks.models import ModelConfig
from autoif_blocks.options import options_of
from autoif_blocks.resolve import find_block
from autoif_blocks.schema import SECTIONS, field_helps, schema

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)


def blocks() -> str:
    """Every built-in block: what it does, its options, what it reads and writes."""
    return "\n\n".join(_block(name, find_block(name, Path())) for name in BLOCKS)


def _block(name: str, cls: Any) -> str:
    about, _, _ = (inspect.getdoc(cls) or "").partition("\nArgs:\n")
    return (
        f"### {name}\n\n*{cls.kind}* · reads: {fields_of(cls, 'reads')} · writes: {fields_of(cls, 'writes')}\n\n"
        f"{about.strip()}\n\n{_options(cls, argument_helps(cls))}"
    )


def parts() -> str:
    """The other parts of a recipe: keys of the top, and the options of models, sandbox, executor, budget, cache."""
    top = schema()["properties"]
    rows = [(f"`{name}`", part.get("description", "")) for name, part in top.items()]
    classes = {"models": ModelConfig, **SECTIONS}
    tables = [f"### {name}\n\n{summary(cls)}.\n\n{_options(cls, field_helps(cls))}" for name, cls in classes.items()]
    return "\n\n".join([_table(("key", "meaning"), rows), *tables])


def commands() -> str:
    """`--help` of every command."""
    found = []
    for name, command in sorted(cli.commands.items()):
        if command.add_help_option:  # `teacher` has a parser of its own
            context = click.Context(command, info_name=f"autoif {name}", max_content_width=100, terminal_width=100)
            found.append(f"### autoif {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(found)


def recipes() -> str:
    """Every recipe: what its head says that it shows, how to run it, and itself."""
    found = []
    for path in [ROOT / "autoif.yaml", *sorted((ROOT / "pipelines").glob("*.yaml"))]:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        run, indented = f"autoif run {name}", "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        found.append(
            f"## {path.stem}\n\n{_head(text)}\n\n```sh\n{run}\n```\n\n"
            f'??? example "{name}"\n\n    ```yaml\n{indented}\n    ```'
        )
    return "\n\n".join(found)


def _head(text: str) -> str:
    """The first comment, up to its first empty line; that of the language server left out."""
    lines = [line for line in text.splitlines() if not line.startswith("# yaml-language-server:")]
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("# "))]
    return " ".join(line.removeprefix("# ") for line in head)


def failures() -> str:
    """What the client makes of what comes back."""
    return "\n".join(line for line in inspect.getdoc(client).splitlines() if line.startswith("|"))  # type: ignore[union-attr]


MADE: Mapping[str, Callable[[], str]] = {
    "blocks": blocks,
    "parts": parts,
    "commands": commands,
    "recipes": recipes,
    "failures": failures,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs' hook. Raises KeyError, which ends the build, for a mark that means nothing."""
    return _MARK.sub(lambda match: MADE[match[1]](), markdown)


def _options(cls: type, helps: Mapping[str, str]) -> str:
    rows = [
        (
            f"`{option.name}`",
            f"<code>{html.escape(option.type_name).replace('|', '&#124;')}</code>",
            "required" if option.required else f"`{_default(option.default)}`",
            helps.get(option.name, ""),
        )
        for option in options_of(cls).values()
    ]
    return _table(("option", "type", "default", "meaning"), rows) if rows else "It has no options."


def _default(value: object) -> str:
    """As a recipe would say it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    listed = f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else value
    return {"dict": "{}", "_HAS_DEFAULT_FACTORY_CLASS": "{}"}.get(type(value).__name__, str(listed)).replace(
        "\n", "\\n"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "&#124;") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
