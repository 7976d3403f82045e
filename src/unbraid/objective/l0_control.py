"""Control of L0: a dictionary starts near its target, and a penalty's weight is moved to hold it there.

    e = log(L0 / target), averaged over steps;   b += rate' clip(e, -1, 1);   u = b + rate lookahead clip(e, -2, 2)
    factor of the weight = exp(u), and for a penalty that may be signed, exp(u) - 4 sinh(rate lookahead (-e - 0.1)+)

L0 is the integral of what the weight pushes, so an integral controller alone swings for ever: the part proportional to
e damps it. From far away every controller either creeps or overshoots, and a short run ends before it is there; so
dictionaries start with about the requested latents, and rate' is the rate, more in a short run. An equality's
multiplier has no sign: where reconstruction alone leaves too few latents, as it does with JumpReLU's thresholds at
first, the weight goes below 0.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import TargetL0

TOLERANCE = 0.15
"""Share of its target that an L0 may be off: beyond, it was missed."""
ROWS = 8192
"""Rows of the sample that starting and measuring look at."""
SMOOTHING = 0.5
"""Share of a step's log L0 in the average: batches are noisy, and every step of delay lets L0 swing more."""
ENOUGH = 0.2
"""Steps times learning rate below which targets are often missed: Adam moves a bias by at most the rate a step."""
SHORT = 500
"""Steps below which the integral is made quicker."""
QUICKEST = 5.0
"""How many times, at most."""
WIDEST = 12.0
"""Of log weights, either way."""
MOST_BELOW = 100.0
"""Largest factor below 0."""


Number = int | float | Tensor
"""A number of the host's, or one that only the device knows, which the host need not wait for."""


class Control(NamedTuple):
    """The controller's state from step to step."""

    level: Number
    """Moving average of log L0; NaN before the first step."""
    integral: Number

    def error(self, target: TargetL0) -> Number:
        return known_or(self.level - math.log(target.l0), 0.0)

    def factor(self, target: TargetL0, signed: bool) -> Number:
        """The factor that the penalty's weight is multiplied by."""
        gain, error = target.rate * target.lookahead, self.error(target)
        wanted = of(math.exp, clipped(self.integral + gain * clipped(error, 2.0), WIDEST))
        short = between(0.0, gain * (-error - 0.1), WIDEST)
        return wanted - between(0.0, 4 * of(math.sinh, short), MOST_BELOW) if signed else wanted

    def moved(self, target: TargetL0, l0: Number, steps: int) -> "Control":
        """After a step with this L0, of so many. The integral is the quicker, the fewer there are: the weight that
        holds an L0 falls while reconstruction improves."""
        now = of(math.log, between(1e-2, l0, math.inf))
        level = known_or(self.level + SMOOTHING * (now - self.level), now)
        error = level - math.log(target.l0)
        rate = target.rate * max(1.0, min(QUICKEST, SHORT / steps))
        return Control(level, clipped(self.integral + rate * clipped(error, 1.0), WIDEST))


def of(function: Callable[[float], float], value: Number) -> Number:
    """A function of `math`, by torch where only the device knows the value."""
    return getattr(torch, function.__name__)(value) if isinstance(value, Tensor) else function(value)


def known_or(value: Number, other: Number) -> Number:
    """The value, or the other one where it is NaN."""
    if isinstance(value, Tensor):
        return torch.where(value.isnan(), other, value)
    return other if math.isnan(value) else value


def between(least: float, value: Number, most: float) -> Number:
    return value.clamp(least, most) if isinstance(value, Tensor) else max(least, min(most, value))


def clipped(value: Number, most: float) -> Number:
    return between(-most, value, most)


@torch.no_grad()
def start_at(dictionary: Dictionary, sample: Float[Tensor, "batch d_in"], l0: int | float) -> None:
    """Raise the thresholds, or lower the encoder's biases, all by as much, until at most `l0` latents a row are active
    on the sample. What is not trained stays as it is, and so do activations that count their latents themselves."""
    wanted = min(max(1, round(l0)), dictionary.width)
    dictionary.activation.start_at_l0(dictionary, sample[:ROWS], wanted)


@torch.no_grad()
def measured(dictionary: Dictionary, sample: Float[Tensor, "batch d_in"]) -> float:
    """Mean number of active latents a row."""
    parts = sample[:ROWS].split(2048)
    return math.fsum(float(dictionary.codes(part).l0()) * len(part) for part in parts) / len(sample[:ROWS])


def missed(requested: int | float, reached: int | float) -> bool:
    """True when an L0 is further from its target than TOLERANCE."""
    return not abs(reached / requested - 1) <= TOLERANCE


def shortfall(provenance: Mapping[str, Any]) -> str:
    """A sentence on how a finished run missed its L0, from its provenance; empty when it did not, or had no target."""
    requested, reached = provenance.get("l0_target"), provenance.get("l0_reached")
    if requested is None or reached is None or not missed(requested, reached):
        return ""
    return f"missed its L0: {requested:g} requested, {reached:.3g} reached; it is compared with nothing"


def too_short(target: TargetL0 | None, steps: int, rate: int | float) -> str:
    """A sentence on why training is unlikely to reach its L0; empty when it may, or has no target."""
    if target is None or steps * rate >= ENOUGH:
        return ""
    return (
        f"{steps:,} steps at a learning rate of {rate:g} may be too few to reach L0 {target.l0:g}, and a run that "
        f"misses it by more than {TOLERANCE:.0%} is compared with nothing; about {math.ceil(ENOUGH / rate):,} steps "
        "are enough: raise --training.tokens, or --training.lr"
    )
