"""An anisotropic spectrum: directions mapped so that the variance of activations falls by a power of its rank.

    map = sum_j j ** (-dial FALL / 2) u_j u_j',   d_i <- map d_i / |map d_i|,   u_j orthonormal, random

Dial 0 leaves all directions as they are. At 1 the first principal direction has 15 to 30 % of the variance, as in a
language model (docs/worlds.md has the measurement). A layer downstream reads a factor where the map is undone: with
M = map^-2, the reader M d_i / (d_i' M d_i) is 1 along d_i and hears of other factors no more than in the flat world.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.world.geometry import orthonormal, random_units

FALL = 1.2
"""The power by which variance falls at dial 1."""


def variances(d_in: int, dial: float) -> Float[Tensor, " d_in"]:
    """Return the share of the variance on each axis, largest first, of activations that were isotropic."""
    found = torch.arange(1, d_in + 1, dtype=torch.float64) ** (-dial * FALL)
    return found / found.sum()


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The linear map of a world's directions."""

    axes: Float[Tensor, "d_in d_in"]
    """Orthonormal rows."""
    scales: Float[Tensor, " d_in"]
    """The factor by which the map stretches each axis, 1 for the first."""

    @classmethod
    def of(cls, d_in: int, dial: float, rng: torch.Generator) -> "Spectrum":
        """Return the map for a dial above 0, with random axes."""
        shares = variances(d_in, dial)
        return cls(orthonormal(random_units(d_in, d_in, rng)), (shares / shares[0]).sqrt().float())

    def stretched(self, vectors: Float[Tensor, "count d_in"]) -> Float[Tensor, "count d_in"]:
        """Return the mapped vectors, of norm 1."""
        mapped = (vectors @ self.axes.T * self.scales) @ self.axes
        return mapped / torch.linalg.vector_norm(mapped, dim=1, keepdim=True)

    def readers(self, bases: Float[Tensor, "factors rank d_in"]) -> Float[Tensor, "factors rank d_in"]:
        """Return for each mapped basis the dual one: 1 along its own vector, 0 along the others of the same factor.

        A vector of zeros, where a basis has fewer than `rank`, gets zeros.
        """
        undone = (bases @ self.axes.T / self.scales.square()) @ self.axes
        overlaps = (undone @ bases.mT).double()
        return (torch.linalg.pinv(overlaps, hermitian=True) @ undone.double()).float()


def check_room(d_in: int, dial: float, *, active: float, noise: float) -> None:
    """Raise ValueError where fewer axes stand out of the noise than factors, of mean square 1, are active at once."""
    room = int((active * variances(d_in, dial) > noise**2).sum())
    if room < active:
        raise ValueError(
            f"spectrum {dial} leaves {room} of {d_in} dimensions above the noise of {noise}, and {active:.1f} factors "
            "are active at once, which need one each: lower spectrum, noise or l0, or raise d_in"
        )
