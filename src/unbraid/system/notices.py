"""Notices while work goes on, through Python's `logging` under the name unbraid: warnings and progress.

Python shows warnings alone; the command line shows both (`shown`).
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unbraid.system.terminal import say

log = logging.getLogger("unbraid")

SILENT = 5.0
"""Seconds before the first notice on a piece of work."""
EVERY = 10.0
"""Seconds between two notices on the same work."""


class Pace:
    """Logs the progress of a piece of work and the time it will take, once it has taken a while."""

    def __init__(self, what: str, total: int | float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.clock = what, total, clock
        self.begun = clock()
        self.next = self.begun + SILENT

    def at(self, done: int | float, so_far: str = "") -> None:
        """Log that `done` of the total is done, if a notice is due; `so_far` describes it."""
        now = self.clock()
        if now < self.next:
            return
        self.next = now + EVERY
        took = now - self.begun
        parts = [so_far] if so_far else []
        if math.isfinite(self.total) and done:
            left = took * max(0.0, self.total / done - 1)
            parts += [f"{done / self.total:.0%}", f"about {in_words(left)} left"]
        log.info("%s: %s", self.what, ", ".join([*parts, f"{in_words(took)} so far"]))


def in_words(seconds: float) -> str:
    """Format a duration: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class StandardError(logging.Handler):
    """Writes every message as a line of standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "note: " if record.levelno >= logging.WARNING else ""
        say(f"{word}{record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Context manager in which every message is written to standard error."""
    handler, before = StandardError(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
