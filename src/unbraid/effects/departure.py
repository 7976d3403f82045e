"""The departure of a push from the distribution: Mahalanobis distances of pushed activations next to held-out ones.

    m(x)^2 = (x - mu)' (S + ridge mean(l) I)^-1 (x - mu),     departure(v) = median m(x + v) / median m(x)

mu, S: mean and covariance of activations that are not scored, l the eigenvalues of S; x: held-out activations. 1 is a
push that leaves activations where they usually are. A push of a tenth of the norm may leave them far behind, along a
direction in which they hardly vary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-4
"""Share of the mean eigenvalue added to each: directions in which a sample varies less are unknown, not forbidden."""


@dataclass(frozen=True, eq=False)
class Spread:
    """The mean of activations, and the map after which their covariance is the identity."""

    mean: Float[Tensor, " d_in"]
    whiten: Float[Tensor, "d_in d_in"]

    @classmethod
    def of(cls, rows: Float[Tensor, "row d_in"], ridge: float = RIDGE) -> "Spread":
        """Measure the spread of some rows. Raises ValueError for fewer rows than dimensions."""
        count, d_in = rows.shape
        if count <= d_in:
            raise ValueError(
                f"{count} activations do not show how they spread in {d_in} dimensions; give more than {d_in} of them"
            )
        mean = rows.double().mean(0)
        centred = rows.double() - mean
        eigenvalues, axes = torch.linalg.eigh(centred.T @ centred / (count - 1))
        sizes = (eigenvalues.clamp_min(0) + ridge * eigenvalues.clamp_min(0).mean()).sqrt()
        return cls(mean, axes / sizes)

    def distances(self, rows: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row"]:
        """Return the Mahalanobis distance of each row from the mean."""
        return torch.linalg.vector_norm((rows.to(self.mean) - self.mean) @ self.whiten, dim=-1)


def departures(
    spread: Spread, held_out: Float[Tensor, "row d_in"], pushes: Float[Tensor, "k d_in"]
) -> Float[Tensor, " k"]:
    """Return how far each push takes held-out activations away from the mean, relative to how far they are."""
    usual = spread.distances(held_out).median()
    return torch.stack([spread.distances(held_out + push.to(held_out)).median() for push in pushes]) / usual
