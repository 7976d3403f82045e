"""The function space in which the exponential DCT is a least squares, and MELBO its orthogonal case.

    Gamma = expm1(V V') [m, m],   E = [pooled(R v_l)] [m, d_out]
    explained(V) = tr(E' Gamma^-1 E),   the best output vectors are U = Gamma^-1 E

Of all sums_l u_l expm1(v_l . theta), the one with the best U agrees with the slice at every R v_l, and `explained` is
the part of the slice's squared norm, in the space of the kernel expm1(x . y), that it accounts for. Orthonormal V make
Gamma = (e - 1) I and explained the sum of |pooled(R v_l)|^2 over e - 1: MELBO with p = 2, q = 1. So Gamma^-1 is what
relaxes orthogonality. A ridge keeps parallel directions from making Gamma singular.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def gram(directions: Float[Tensor, "k d_in"], ridge: float) -> Float[Tensor, "k k"]:
    """Return Gamma + ridge I."""
    return torch.expm1(directions @ directions.T) + ridge * torch.eye(len(directions)).to(directions)


def explained(effects: Float[Tensor, "k d_out"], directions: Float[Tensor, "k d_in"], ridge: float) -> Tensor:
    """Return tr(E' (Gamma + ridge I)^-1 E)."""
    factor = torch.linalg.cholesky(gram(directions, ridge))
    return torch.linalg.solve_triangular(factor, effects, upper=False).square().sum()


def outputs(
    effects: Float[Tensor, "k d_out"], directions: Float[Tensor, "k d_in"], ridge: float
) -> Float[Tensor, "k d_out"]:
    """Return (Gamma + ridge I)^-1 E."""
    return torch.cholesky_solve(effects, torch.linalg.cholesky(gram(directions, ridge)))
