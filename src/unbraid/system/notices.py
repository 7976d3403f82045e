"""What is told while work goes on, through Python's `logging` under the name unbraid: warnings, and how far work is.

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
"""Seconds that work may take before anything is said of it."""
EVERY = 10.0
"""Seconds between two lines on the same work."""


class Pace:
    """Tells how far a piece of work is, and how long it will take, once it has taken a while."""

    def __init__(self, what: str, total: int | float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.clock = what, total, clock
        self.begun = clock()
        self.next = self.begun + SILENT

    def at(self, done: int | float, so_far: str = "") -> None:
        """`done` of the total is done; `so_far` says what that is."""
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
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Lines(logging.Handler):
    """A line of standard error for every message."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "note: " if record.levelno >= logging.WARNING else ""
        say(f"{word}{record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Within, every message goes to standard error, as a line each."""
    handler, before = Lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
