"""Being asked to stop, by Ctrl-C, SIGTERM or a closed terminal: answered at once.

Work that can be broken off anywhere ends there, with KeyboardInterrupt. Within `gently`, the signal is only noted, and
said to be: what must not be broken off is finished first. Asked twice, it ends anywhere.
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


class Stop:
    """What has been asked."""

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0
        self._gentle = ""

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        now = time.monotonic()
        if self.asked and now - self._when < ONE:
            return
        again, self.asked, self._when = self.asked, True, now
        if again or not self._gentle:
            raise KeyboardInterrupt
        with suppress(OSError):
            os.write(2, f"{self._gentle}\n".encode())  # sys.stderr may be in the middle of a line of its own

    @contextmanager
    def gently(self, saying: str) -> Iterator[None]:
        """Within, a first signal is answered by `saying` and left to be seen in `asked`."""
        before, self._gentle = self._gentle, saying
        try:
            yield
        finally:
            self._gentle = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within `gently`: a part that can be broken off. Raises KeyboardInterrupt when asked, before or within."""
        before, self._gentle = self._gentle, ""
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._gentle = before


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within, the signals go to a Stop. A signal that is ignored (nohup) stays so."""
    stop = Stop()
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
