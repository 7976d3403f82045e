"""Moving averages of how each latent fires, without gradient: penalties normalise by them.

A latent that has just come to life has a small average: where the batch at hand has `LEAP` times its variance, the
batch's is taken, which keeps correlations near or below 1. For all others the average stands, whatever the batch shows:
the larger of the two would be 5 % too large on average, and so would a correlation be too small.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.codes import Codes
from unbraid.terms.statistics.moving_average import move, warm_decay

FLOOR = 1e-3
"""Smallest variance, as a share of the mean square when active: that of a latent firing once in a thousand rows."""

LEAP = 4.0
"""Variance of a batch, in averages, above which a latent is taken to have come to life: noise is seldom as large in
latents that fire a few times a batch."""


@dataclass(frozen=True)
class Moments:
    rate: Float[Tensor, " d_sae"]
    """Share of rows in which the latent fires."""
    mean: Float[Tensor, " d_sae"]
    square: Float[Tensor, " d_sae"]
    """Mean square; of all rows, like the mean."""

    def living(self, rarest: float) -> Int[Tensor, " living"]:
        """Latents that fire at least so often."""
        return (self.rate >= rarest).nonzero().squeeze(1)

    def variance(self) -> Float[Tensor, " d_sae"]:
        return (self.square - self.mean.square()).clamp_min(0)

    def rms(self) -> Float[Tensor, " d_sae"]:
        """Root mean square when active; 0 of a silent latent."""
        return (self.square / self.rate.clamp_min(1e-12)).sqrt()


@torch.no_grad()
def measured(z: Codes) -> Moments:
    """Averages over one batch."""
    values, _, latents = z.entries()
    sums = lambda of: of.new_zeros(z.d_sae).index_add_(0, latents, of) / z.batch
    return Moments(sums(torch.ones_like(values)), sums(values), sums(values.square()))


@torch.no_grad()
def averaged(z: Codes, memory: dict[str, Tensor], decay: float) -> tuple[Moments, Float[Tensor, " d_sae"]]:
    """The averages with this batch, kept in `memory`, and the deviation to divide each latent by, above 0."""
    now = measured(z)
    keep = warm_decay(memory, decay)
    average = Moments(*(move(memory, name, getattr(now, name), keep) for name in ("rate", "mean", "square")))
    usual, latest = average.variance(), now.variance()
    variance = torch.where(latest > LEAP * usual, latest, usual)
    floor = FLOOR * average.rms().square()
    return average, torch.maximum(variance, floor).sqrt().clamp_min(1e-12)
