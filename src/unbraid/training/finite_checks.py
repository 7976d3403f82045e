"""Checks that losses and gradients are finite: at once, or every few steps on devices that work off a queue.

There the host would wait for the answer at every step. Instead the device itself leaves the parameters alone from the
first bad step on, and the batches of steps that were not checked are kept: made again, they show what was bad.
"""

import torch
from torch import Tensor

from unbraid.objective.step_data import ExtraInputs
from unbraid.objective.weighted_sum import NotFinite, all_finite
from unbraid.sources.base import Batch
from unbraid.system.devices import queued

NEVER = 2**62
EVERY = 8
"""Steps after which the host looks at a queued device: at more, it would keep more batches there. It looks at the
beginning of a step, when the step's batch is read, and when `dead_latents` makes it wait anyway."""


class FoundLate(NotFinite):
    """A step was bad that has been followed by others; the parameters are as before it, but for rounding of norms."""

    def __init__(self, step: int, reason: str):
        self.step = step
        super().__init__(reason)


class FiniteChecks:
    """The first step at which something was not finite, and the steps of which that is not known yet."""

    def __init__(self, device: str):
        self._queued = queued(device)
        self._waiting: list[Tensor] = []
        self._first_bad = torch.full((), NEVER, device=device)
        self._unchecked: dict[int, tuple[Batch, ExtraInputs]] = {}

    def begin(self, batch: Batch, index: int, extra: ExtraInputs) -> None:
        """Keep what a step is made of for as long as it may have to be made again."""
        if self._queued:
            self._unchecked[index] = batch, extra.fresh()

    def finite(self, number: Tensor) -> bool:
        """True when it is finite; on a queued device always, and `bad` will count it."""
        if self._queued:
            self._waiting.append(number)
        return self._queued or all_finite(number)

    def bad(self, index: int) -> Tensor | None:
        """Return 1 when something in this step or an unchecked one before was not finite, else 0, which the device
        alone knows; None where a step that is bad does not get here."""
        if not self._queued:
            return None
        numbers = torch.stack([number.float() for number in self._waiting])
        self._waiting = []
        self._first_bad.clamp_(max=torch.where(torch.isfinite(numbers).all(), NEVER, index))
        return (self._first_bad <= index).float()

    def look(self) -> tuple[int, Batch, ExtraInputs] | None:
        """Wait for the device; return the number of the first bad step, and what it was made of. None when all were
        good."""
        steps, self._unchecked = self._unchecked, {}
        first = int(self._first_bad) if steps else NEVER
        return None if first == NEVER else (first, *steps[first])
