"""The lines printed as runs are scored: a line for each result, and one in the end for evals that do not apply."""

import time
from collections import defaultdict
from pathlib import Path

from unbraid.system.files import read_json
from unbraid.system.progress import duration
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say


class Tally:
    """Counts every run and eval that is settled, and estimates the time left from those that were made anew."""

    def __init__(self, total: int, *, verbose: bool = True, alone: bool = True):
        """`verbose`: evals that do not apply have lines of their own, with the reason. `alone`: nothing else is done
        meanwhile, so that the results so far tell how long the others take."""
        self.total, self.verbose, self.alone = total, verbose, alone
        self.begun = time.monotonic()
        self.done = self.worked = 0
        self.settled: set[tuple[str, str]] = set()
        self.runs: set[str] = set()
        self.silent: dict[str, set[str]] = defaultdict(set)
        """Runs by the eval that does not apply to them."""

    def __call__(self, folder: Path, name: str, status: str) -> None:
        """A run and an eval are settled. A second time, as when a worker was lost in between, nothing is counted."""
        if (folder.name, name) in self.settled:
            return
        self.settled.add((folder.name, name))
        self.done, self.worked = self.done + 1, self.worked + (status != "kept")
        self.runs.add(folder.name)
        if not self.verbose and inapplicable(folder, name):
            self.silent[name].add(folder.name)
            return
        left = (time.monotonic() - self.begun) / max(self.worked, 1) * (self.total - self.done)
        soon = f", {duration(left)} left" if self.alone and self.worked and left >= 10 else ""
        say(f"[{self.done}/{self.total}{soon}] {name:<18} {on_one_line(folder.name):<60} {status}", flush=True)

    def summary(self) -> str:
        """The evals that do not apply, and where the reasons are; empty when all do."""
        if not self.silent:
            return ""
        some = lambda runs: f" ({len(runs)} of {len(self.runs)} runs)" if len(runs) < len(self.runs) else ""
        names = ", ".join(f"{name}{some(runs)}" for name, runs in self.silent.items())
        count = f"{len(self.silent)} eval{'s do' if len(self.silent) > 1 else ' does'} not apply"
        return f"{count}: {names}; the reasons are in the results, and shown with --verbose"


def inapplicable(folder: Path, name: str) -> bool:
    """Tell whether the result that was just written, or kept, says that the eval does not apply."""
    try:
        return "not_applicable" in read_json(folder / "results" / f"{name}.json")
    except ValueError:
        return False
