"""What is printed as runs are scored: a line for each result, and one in the end for evals that do not apply."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from unbraid.system.files import read_json
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say

if TYPE_CHECKING:
    from unbraid.runs.run import Run

Duration = Callable[[float], str]


class Tally:
    """Counts every run and eval that is settled; tells of the time left by the mean of those not kept."""

    def __init__(self, total: int, duration: Duration, *, verbose: bool = True):
        """`verbose`: evals that do not apply have lines of their own, with the reason."""
        self.total, self.duration, self.verbose = total, duration, verbose
        self.begun = time.monotonic()
        self.done = self.worked = 0
        self.runs: set[str] = set()
        self.silent: dict[str, set[str]] = defaultdict(set)
        """Runs by the eval that does not apply to them."""

    def __call__(self, run: "Run", name: str, status: str) -> None:
        self.done, self.worked = self.done + 1, self.worked + (status != "kept")
        self.runs.add(run.path.name)
        if not self.verbose and inapplicable(run, name):
            self.silent[name].add(run.path.name)
            return
        left = (time.monotonic() - self.begun) / max(self.worked, 1) * (self.total - self.done)
        soon = f", {self.duration(left)} left" if self.worked and left >= 10 else ""
        say(f"[{self.done}/{self.total}{soon}] {name:<18} {on_one_line(run.path.name):<60} {status}", flush=True)

    def summary(self) -> str:
        """The evals that do not apply, and where the reasons are; empty when all do."""
        if not self.silent:
            return ""
        some = lambda runs: f" ({len(runs)} of {len(self.runs)} runs)" if len(runs) < len(self.runs) else ""
        names = ", ".join(f"{name}{some(runs)}" for name, runs in self.silent.items())
        count = f"{len(self.silent)} eval{'s do' if len(self.silent) > 1 else ' does'} not apply"
        return f"{count}: {names}; the reasons are in the results, and shown with --verbose"


def inapplicable(run: "Run", name: str) -> bool:
    """Whether the result that was just written, or kept, says that the eval does not apply."""
    path = run.path / "results" / f"{name}.json"
    try:
        return "not_applicable" in read_json(path)
    except ValueError:
        return False
