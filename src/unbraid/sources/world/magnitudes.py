"""Magnitudes of active factors: positive, of mean 1, with a stated spread; Pareto ones have the heaviest tail."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt, Settings

Kind = Literal["lognormal", "uniform", "quantised", "constant", "pareto"]


@dataclass(frozen=True)
class Magnitudes(Settings):
    """The distribution of the magnitudes of active factors, of mean 1."""

    kind: Kind
    spread: NonNegativeFloat
    """Standard deviation; without meaning for constant ones."""
    levels: PositiveInt
    """Equally likely, equally spaced values of quantised ones."""

    def check_together(self) -> None:
        if self.kind == "quantised" and self.levels < 2:
            raise ValueError(f"levels is {self.levels}; quantised magnitudes have at least 2, constant ones have 1")
        if self.spread * self._reach >= 1:
            raise ValueError(
                f"{self.kind} magnitudes of spread {self.spread} reach 0; "
                f"use less than {1 / self._reach:.3f}, or lognormal or pareto ones"
            )

    @property
    def _reach(self) -> float:
        """The distance of the smallest value from the mean, in standard deviations; 0 where no value is too small."""
        match self.kind:
            case "uniform":
                return math.sqrt(3)
            case "quantised":
                return math.sqrt(3 * (self.levels - 1) / (self.levels + 1))
            case "lognormal" | "constant" | "pareto":
                return 0.0

    def draw(self, count: int, rng: torch.Generator) -> Float[Tensor, " count"]:
        half_width = self.spread * self._reach
        match self.kind:
            case "constant":
                return torch.ones(count)
            case "pareto":
                # P(z > t) = (least / t) ** (1 / fall): a power law, whose standard deviation sets the power.
                fall = self.spread / (self.spread + math.hypot(self.spread, 1))
                return (1 - torch.rand(count, generator=rng)).pow_(-fall).mul_(1 - fall)
            case "uniform":
                return torch.rand(count, generator=rng).mul_(2 * half_width).add_(1 - half_width)
            case "quantised":
                level = torch.randint(self.levels, (count,), generator=rng)
                return 1 - half_width + level * (2 * half_width / (self.levels - 1))
            case "lognormal":
                variance = math.log1p(self.spread**2)  # of the logarithm
                return torch.randn(count, generator=rng).mul_(math.sqrt(variance)).sub_(variance / 2).exp_()


def folded_normal(count: int, spread: float, rng: torch.Generator) -> Float[Tensor, " count"]:
    """Return |1 + spread e|, e normal: the magnitudes of dense factors.

    Up to spread 0.5 the mean is within 1 % of 1.
    """
    return torch.randn(count, generator=rng).mul_(spread).add_(1).abs_()
