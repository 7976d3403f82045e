"""Progress of work under way: bars with the time left on a terminal, a line every half minute elsewhere."""

import time
from types import TracebackType

from unbraid.system.notices import in_words
from unbraid.system.terminal import say

LINE_SECONDS = 30
"""Seconds between two lines where there is no terminal."""


class ProgressDisplay:
    """One bar per thing under way, with its rate and the time left; a context manager that gives itself."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console()
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[rate]}"))
        self._bars = Progress(
            TextColumn("{task.description}"), *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._on_terminal = console.is_terminal
        self._begun: dict[str, tuple[TaskID, float, int]] = {}
        self._last_line = time.monotonic()

    def __call__(self, what: str, unit: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `what` are done."""
        now = time.monotonic()
        if what not in self._begun:
            self._begun[what] = self._bars.add_task(what, total=total, rate=""), now, done
        task, started, first = self._begun[what]
        rate = (done - first) / max(now - started, 1e-9)
        self._bars.update(task, completed=done, total=total, rate=f"{rate:,.0f} {unit}/s")
        if not self._on_terminal and now - self._last_line > LINE_SECONDS and rate > 0:
            self._last_line = now
            say(f"{what}: {done / total:.0%}, {rate:,.0f} {unit}/s, {duration((total - done) / rate)} left", flush=True)

    def __enter__(self) -> "ProgressDisplay":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def duration(seconds: float) -> str:
    """Format an estimate of a duration: "about 40 s", "about 12 min", "about 3.5 h"."""
    return f"about {in_words(seconds)}"
