"""Terms that end the process they are evaluated in, or hold it up, or fail; workers import them by name."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from unbraid.objective.objective import Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Kills(Term):
    """Nothing, but that half-way the process is killed, so many times in all."""

    mark: str
    """Folder with a file for each time."""
    times: int = 1

    def __call__(self, step: Step) -> TermOutput:
        been = len(list(Path(self.mark).iterdir()))
        if step.progress >= 0.5 and been < self.times:
            (Path(self.mark) / str(been)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return TermOutput(0 * step.z.values.mean())


@dataclass(frozen=True, kw_only=True)
class Waits(Term):
    """Nothing, but that every step takes a while as long as a file is there."""

    mark: str
    seconds: float = 0.5

    def __call__(self, step: Step) -> TermOutput:
        if Path(self.mark).exists():
            time.sleep(self.seconds)
        return TermOutput(0 * step.z.values.mean())


@dataclass(frozen=True, kw_only=True)
class Diverges(Term):
    """NaN from half-way on."""

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.z.values.mean() * (torch.nan if step.progress >= 0.5 else 0.0))
