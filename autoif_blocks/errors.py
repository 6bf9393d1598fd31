"""Every failure of this project, one tree, named by its consequence.

    AutoIFError
    ├── RecipeError        nothing has started: fix the recipe or the command line   exit code 2
    ├── StopRun            the run cannot go on; what was paid for is kept           exit code 1
    │   ├── ModelUnavailable   the model's endpoint refuses every request            exit code 3
    │   ├── BudgetSpent        the run has used what it may use                      exit code 4
    │   ├── TargetMissed       more instructions bring no more records               exit code 1
    │   └── SandboxUnavailable model-written code cannot be run here                 exit code 1
    ├── DropRecord         this record leaves the run, with a reason
    └── Retry              the same request may succeed a little later

`DropRecord` and `Retry` never reach a user: the block or the client that owns the record turns them into a line of the
drop log or a further attempt.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any


class AutoIFError(Exception):
    """Base of the tree; catch this to catch everything that this package raises on purpose."""

    exit_code = 1


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a recipe: where, what, and what to do about it."""

    file: str
    line: int
    step: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return where + (f"step '{self.step}': " if self.step else "") + self.message


class RecipeError(AutoIFError):
    """The recipe or the command line is wrong; `problems` holds all that was found, in file order."""

    exit_code = 2

    def __init__(self, problems: list[Problem] | str) -> None:
        self.problems = problems if isinstance(problems, list) else []
        super().__init__(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems)) or str(self.args[0])


class StopRun(AutoIFError):
    """Going on would waste money or lose records: end now, keep what is finished, say why."""


class ModelUnavailable(StopRun):
    """The endpoint refuses every request: bad key, unknown model, nobody listening."""

    exit_code = 3


class BudgetSpent(StopRun):
    """One of the recipe's budgets is used up; what is finished is in the output directory."""

    exit_code = 4


class TargetMissed(StopRun):
    """The recipe cannot bring as many records as its target says; those that it brought are in the output directory."""


class SandboxUnavailable(StopRun):
    """Model-written code cannot be run safely on this machine."""


class DropRecord(AutoIFError):
    """This record goes no further. `reason` is a short countable name, `detail` what a reader needs to believe it;
    `evidence` are fields that the drop log shows on the record."""

    def __init__(self, reason: str, detail: str = "", **evidence: Any) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.evidence = evidence


class Retry(AutoIFError):
    """The request may succeed later. `after` is the server's own wish, in seconds, if it had one."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason, after)
        self.reason = reason
        self.after = after


class Unfinished(BaseException):
    """The run is ending: this record stays where it is. No failure, so that no `except Exception` takes it for one."""


CONTINUES = "What is on disk is kept: the same command continues"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or name another place"),
    errno.EIO: "the kernel's log says more",
}


def disk_trouble(error: BaseException, place: object) -> StopRun | None:
    """A disk that is full, or a place that cannot be written, in a sentence; None of any other error. `place` is what
    was written, if the error does not say."""
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    named = str(error.filename or "")
    where = named if "/" in named else place  # whoever deletes a folder names what is in it without its path
    return StopRun(f"cannot write {where}: {error.strerror}; {_REMEDIES[error.errno]}. {CONTINUES}")
