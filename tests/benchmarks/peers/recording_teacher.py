"""The simulated teacher, for which a request takes as long as its step and number say, whatever else its body holds.

    python recording_teacher.py NOTES [options of `python -m autoif_blocks.teacher`]

So everyone waits for the same, and one simulation tells the best time for all. The bodies that came are written to
NOTES when the server is told to stop.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from job import STEPS

from autoif_blocks.teacher import server
from autoif_blocks.teacher.__main__ import main
from autoif_blocks.teacher.config import TeacherConfig
from autoif_blocks.teacher.server import service_time

OPENINGS = [prompt.partition("{")[0] for prompt in STEPS.values()]
ASKED = re.compile(rf"({'|'.join(OPENINGS)})(\d+)".encode())


def asked(body: bytes) -> tuple[int, int] | None:
    """The step, counted from 0, and the number that a request is about; None if it is none of the work's."""
    found = ASKED.search(body)
    return found and (OPENINGS.index(found[1].decode()), int(found[2]))


def seconds_for(config: TeacherConfig, step: int, number: int, tries: int = 0) -> float:
    return service_time(config, b"%d %d" % (step, number), tries)


if __name__ == "__main__":
    bodies: list[str] = []

    def noted(config: TeacherConfig, body: bytes, tries: int = 0) -> float:
        bodies.append(body.decode())
        what = asked(body)
        return seconds_for(config, *what, tries) if what else 0.0

    server.service_time = noted
    notes, *options = sys.argv[1:]
    code = main(options)
    Path(notes).write_text(json.dumps(bodies))
    sys.exit(code)
