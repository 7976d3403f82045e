"""Whitening of activations: a linear map after which their covariance is nearer to the identity.

    W = c U diag( (l_i + ridge mean(l)) ^ (-power / 2) ) U',    U diag(l) U' the covariance of a sample

power 1 is full whitening (arXiv 2511.13981), 0 none. c keeps the mean square of the sample what it was. The directions
and powers are those of PCA whitening; turned back by U', W leaves the axes of the model where they are, and at power 0
all of it is the identity. A rotation changes no norm, product or error, so nothing that is trained depends on it but
Adam, which scales axes one by one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SINGULAR = 1e-10
"""Share of the largest eigenvalue below which one is rounding: of float32 activations, added up in float64."""


@dataclass(frozen=True)
class Whitening:
    """The map of centred rows, and its inverse."""

    matrix: Float[Tensor, "d_in d_in"]
    inverse: Float[Tensor, "d_in d_in"]

    @classmethod
    def fit(cls, centred: Float[Tensor, "batch d_in"], *, ridge: float, power: float) -> "Whitening":
        """Fit to centred rows in float64. Raises ValueError for a covariance that cannot be inverted."""
        rows, d_in = centred.shape
        if ridge == 0 and power > 0 and rows <= d_in:
            raise ValueError(
                f"{rows} activations have no invertible covariance in {d_in} dimensions: give more than {d_in}, or set "
                "--training.whiten-ridge above 0"
            )
        eigenvalues, axes = torch.linalg.eigh(centred.T @ centred / rows)
        eigenvalues = eigenvalues.clamp_min(0)
        known = int((eigenvalues > SINGULAR * eigenvalues[-1]).sum())
        if ridge == 0 and power > 0 and known < d_in:
            raise ValueError(
                f"the activations vary in {known} of {d_in} dimensions, so their covariance cannot be inverted: set "
                "--training.whiten-ridge above 0"
            )
        sizes = (eigenvalues + ridge * eigenvalues.mean()) ** (power / 2)
        kept = (eigenvalues.sum() / (eigenvalues / sizes.square()).sum()).sqrt()
        return cls((axes * (kept / sizes)) @ axes.T, (axes * (sizes / kept)) @ axes.T)

    def to(self, target: str | torch.device | torch.dtype) -> "Whitening":
        """Return the same on another device, or in another precision."""
        return Whitening(self.matrix.to(target), self.inverse.to(target))
