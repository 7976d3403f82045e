"""Activations of a world, drawn with the active factors behind them: offset + sum_i z_i d_i + noise."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.world.active_factors import ActiveFactors, FactorSampler, add_factors


@dataclass(frozen=True)
class Sample:
    """Activations, and the factors behind them."""

    x: Float[Tensor, "batch d_in"]
    z: Float[Tensor, "batch factors"]
    """Magnitude of each factor; 0 where it is inactive."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """The sampler of a world's rows: draws a bounded number at once."""

    factor_sampler: FactorSampler
    directions: Float[Tensor, "factors d_in"]
    offset: Float[Tensor, " d_in"]
    """The constant in all activations."""
    noise: float
    """Standard deviation in each coordinate."""

    def draw(self, count: int, rng: torch.Generator) -> tuple[Float[Tensor, "count d_in"], ActiveFactors]:
        """Return `count` rows, and the factors active in them."""
        x, parts = self._background(count, rng), []
        for start, part in self._active(count, rng):
            chunk = x[start : start + self.factor_sampler.at_once]
            add_factors(chunk, part, self.directions, self.factor_sampler.manifolds)
            parts.append(part._replace(rows=part.rows + start))
        return x, joined(parts)

    def corrupted(
        self, count: int, share: float, probabilities: Float[Tensor, " factors"], rng: torch.Generator
    ) -> Float[Tensor, "count d_in"]:
        """Return rows in which this share of the active factors is replaced by others, drawn by `probabilities`.

        The forest is ignored, and factors on manifolds stay.
        """
        manifolds = self.factor_sampler.manifolds
        # Not used: without them, factors would be others than those of every run before.
        torch.randn(count, len(self.offset), generator=rng)
        active = joined([part._replace(rows=part.rows + start) for start, part in self._active(count, rng)])
        drawn = torch.multinomial(probabilities, len(active.factors), replacement=True, generator=rng)
        curved = manifolds.among(active.factors) | manifolds.among(drawn)
        chosen = (torch.rand(len(drawn), generator=rng) < share) & ~curved
        x = self._background(count, rng)
        replaced = active._replace(factors=torch.where(chosen, drawn, active.factors))
        add_factors(x, replaced, self.directions, manifolds)
        return x

    def _active(self, count: int, rng: torch.Generator) -> Iterator[tuple[int, ActiveFactors]]:
        """Yield the active factors of a bounded number of rows at once, with the number of the first."""
        for start in range(0, count, self.factor_sampler.at_once):
            yield start, self.factor_sampler.draw(min(self.factor_sampler.at_once, count - start), rng)

    def _background(self, count: int, rng: torch.Generator) -> Float[Tensor, "count d_in"]:
        """Return the noise and the constant, before any factor."""
        return torch.randn(count, len(self.offset), generator=rng).mul_(self.noise).add_(self.offset)


def joined(parts: list[ActiveFactors]) -> ActiveFactors:
    """Return the active factors of all parts, whose rows are numbered alike."""
    return ActiveFactors(*(torch.cat(column) for column in zip(*parts, strict=True)))
