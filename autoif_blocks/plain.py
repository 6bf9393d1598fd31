"""Text that a model wrote, made fit for a person's eyes: what would steer a terminal is shown, never obeyed."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, lone surrogates, and what changes the direction of the text around it. A tab and a line
# break are what they are.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def plain(text: str) -> str:
    """The text with `\\x1b` and the like in place of characters that would steer a terminal."""
    return _STEERING.sub(lambda match: _escaped(match[0]), text)


def one_line(text: str, room: int = 100) -> str:
    """The text on one line, cut to so many characters."""
    line = " ".join(plain(text).split())
    return line if len(line) <= room else f"{line[: room - 1]}…"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
