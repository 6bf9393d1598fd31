"""Model servers that a run starts itself, by datatrove's server classes, with the run or with each of its tasks.

A supervisor, which is a thread of the run or of a task, starts a host, which is a process, in which datatrove's class
starts the server. Clients learn from a file where it answers; while it does not they wait, and what failed meanwhile
is no fault of a request's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .state import Served, ServerState
from .supervisor import Note, ServerSpec, Supervisor

__all__ = ["Served", "ServerSpec", "ServerState", "Supervisor", "serving"]


@contextlib.contextmanager
def serving(
    specs: Iterable[ServerSpec], folder: Path, logs: Path, note: Note, rank: int | None = None
) -> Iterator[None]:
    """Has the servers, each once, started when they are first wanted; ends them, side by side, with the block.

    `folder` tells clients of them, in the file `spec.file("json")`; `logs` gets what they say. `rank` is the task whose
    own they are.
    """
    log = "server.log" if rank is None else f"server.{rank:05d}.log"
    supervisors = [
        Supervisor(spec, folder / spec.file("json"), logs / spec.file(log), note, rank or 0)
        for spec in {spec.name: spec for spec in specs}.values()
    ]
    try:
        yield
    finally:
        for supervisor in supervisors:
            supervisor.stop()
        for supervisor in supervisors:
            supervisor.join()
