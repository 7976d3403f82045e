"""Activations of a world, drawn with the active behind them: offset + sum_i z_i d_i + noise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.world.active_factors import ActiveFactors, FactorSampler, add_factors


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws rows of a world, a bounded number at once."""

    factor_sampler: FactorSampler
    directions: Float[Tensor, "factors d_in"]
    offset: Float[Tensor, " d_in"]
    """The constant in all activations."""
    noise: float
    """Standard deviation in each coordinate."""

    def draw(self, count: int, rng: torch.Generator) -> tuple[Float[Tensor, "count d_in"], ActiveFactors]:
        """`count` rows, and who fires in them."""
        x, parts = self._background(count, rng), []
        for start in range(0, count, self.factor_sampler.at_once):
            chunk = x[start : start + self.factor_sampler.at_once]
            part = self.factor_sampler.draw(len(chunk), rng)
            add_factors(chunk, part, self.directions, self.factor_sampler.manifolds)
            parts.append(part._replace(rows=part.rows + start))
        return x, ActiveFactors(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def corrupted(
        self, count: int, share: float, probabilities: Float[Tensor, " factors"], rng: torch.Generator
    ) -> Float[Tensor, "count d_in"]:
        """Rows in which each active factor of this share is another, drawn by `probabilities`, whatever the forest
        says. Those on manifolds stay."""
        manifolds = self.factor_sampler.manifolds
        _, active = self.draw(count, rng)
        drawn = torch.multinomial(probabilities, len(active.factors), replacement=True, generator=rng)
        curved = manifolds.among(active.factors) | manifolds.among(drawn)
        chosen = (torch.rand(len(drawn), generator=rng) < share) & ~curved
        x = self._background(count, rng)
        replaced = active._replace(factors=torch.where(chosen, drawn, active.factors))
        add_factors(x, replaced, self.directions, manifolds)
        return x

    def _background(self, count: int, rng: torch.Generator) -> Float[Tensor, "count d_in"]:
        """Noise and the constant, before any factor."""
        return torch.randn(count, len(self.offset), generator=rng).mul_(self.noise).add_(self.offset)
