"""Requests to stop, by Ctrl-C, SIGTERM or a closed terminal, which are acknowledged at once.

Work that can be interrupted anywhere ends there, with KeyboardInterrupt. Within `gently`, the signal is only recorded
and acknowledged: work that must not be interrupted is finished first. A second request ends it anywhere.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ONE = 1.0
"""Seconds within which signals are one request: a terminal and a parent may both send one."""


class StopRequest:
    """The requests to stop that have arrived."""

    def __init__(self) -> None:
        self.requested = False
        self._when = 0.0
        self._gentle = ""

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self.requested and now - self._when < ONE:
            return
        again, self.requested, self._when = self.requested, True, now
        if again or not self._gentle:
            raise KeyboardInterrupt
        with suppress(OSError):
            os.write(2, f"{self._gentle}\n".encode())  # sys.stderr may be in the middle of a line of its own

    @contextmanager
    def gently(self, saying: str) -> Iterator[None]:
        """Context manager in which a first signal only prints `saying` and sets `requested`."""
        before, self._gentle = self._gentle, saying
        try:
            yield
        finally:
            self._gentle = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Context manager, within `gently`, of work that can be interrupted: a request raises KeyboardInterrupt."""
        before, self._gentle = self._gentle, ""
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._gentle = before


@contextmanager
def stopping() -> Iterator[StopRequest]:
    """Context manager in which signals go to a StopRequest. A signal that is ignored (nohup) stays ignored."""
    stop = StopRequest()
    previous: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, stop.ask)
    except ValueError:
        pass  # signals can be handled in the main thread only
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
