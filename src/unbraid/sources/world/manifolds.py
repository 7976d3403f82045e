"""Factors that are circles or spheres: where such a factor is active, it adds a random point on it.

    z_i (u . basis_i),   u uniform on the unit circle or sphere,   basis_i orthonormal in 2 or 3 dimensions

Factor i is one thing, present at a magnitude; which of its points is shown says no more about presence.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.sources.world.geometry import orthonormal
from unbraid.sources.world.spectrum import Spectrum

MOST = 3
"""Dimensions of a sphere's subspace."""


@dataclass(frozen=True)
class Manifold:
    """A circle or sphere of directions."""

    factor: int
    basis: Float[Tensor, "dimensions d_in"]
    """Orthonormal; its first row is the factor's reference direction."""


@dataclass(frozen=True, eq=False)
class Manifolds:
    """Consecutive factors from `first` on, circles before spheres."""

    first: int
    bases: Float[Tensor, "manifolds 3 d_in"]
    """A circle's third row is zero."""
    readers: Float[Tensor, "manifolds 3 d_in"]
    """Vectors that layers downstream read coordinates in a basis with: the bases, where the spectrum is flat."""

    def __len__(self) -> int:
        return len(self.bases)

    def among(self, factors: Int[Tensor, " active"]) -> Bool[Tensor, " active"]:
        """Return a mask of the factors that are manifolds."""
        return (factors >= self.first) & (factors < self.first + len(self))

    def draw(self, factors: Int[Tensor, " active"], rng: torch.Generator) -> Float[Tensor, "active 3"]:
        """Return a random point on the manifold of each of these factors, in the coordinates of its basis."""
        flat = torch.linalg.vector_norm(self.bases, dim=2)[factors - self.first]
        points = torch.randn(len(factors), MOST, generator=rng) * flat
        return points / torch.linalg.vector_norm(points, dim=1, keepdim=True)

    def vectors(
        self, factors: Int[Tensor, " active"], points: Float[Tensor, "active 3"]
    ) -> Float[Tensor, "active d_in"]:
        return torch.einsum("ak,akd->ad", points, self.bases[factors - self.first])

    def readouts(self, centred: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold manifolds"]:
        """Return the norm of the activations' coordinates in each manifold's subspace."""
        coordinates = centred @ self.readers.to(centred).flatten(0, 1).T
        return torch.linalg.vector_norm(coordinates.unflatten(-1, (len(self), MOST)), dim=-1)


def planted(
    axes: Float[Tensor, "axes d_in"],
    first: int,
    factors: int,
    circles: int,
    spheres: int,
    spectrum: Spectrum | None,
) -> Manifolds:
    """Return the manifolds of factors `first`, `first` + 1, and so on.

    Each takes its factor's axis, and one axis (a circle) or two (a sphere) of those after the `factors` directions.
    """
    bases = torch.zeros(circles + spheres, MOST, axes.shape[1])
    after = factors
    for i in range(len(bases)):
        others = 1 if i < circles else 2
        rows = torch.cat([axes[first + i : first + i + 1], axes[after : after + others]])
        bases[i, : 1 + others] = orthonormal(rows)
        after += others
    return Manifolds(first, bases, bases if spectrum is None else spectrum.readers(bases))
