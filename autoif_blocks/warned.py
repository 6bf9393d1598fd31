"""The last warning of this package's loggers, for whoever watches a run."""

from __future__ import annotations

import logging
import sys
import time


class LastWarning(logging.Handler):
    """Keeps the last warning; puts all of them, with the time, where the process's log goes if nobody else takes them.

    While blocks run, `sys.stderr` is a task's log file.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: tuple[float, str] | None = None
        """when, in seconds since 1970, and what"""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.last = (record.created, text)
        others = [handler for handler in _LOGGER.handlers if not isinstance(handler, LastWarning)]
        ours = [handler for handler in _LOGGER.handlers if isinstance(handler, LastWarning)]
        if not others and not logging.getLogger().handlers and ours[:1] == [self]:
            when = time.strftime("%F %T", time.localtime(record.created))
            print(f"{when} {record.levelname}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> LastWarning:
        _LOGGER.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOGGER.removeHandler(self)


_LOGGER = logging.getLogger(__package__)
