"""How much of a slice, as a function, some directions account for: exponential DCT with the outputs eliminated.

    tr( E (Gamma + ridge I)^-1 E' ),   E = [Delta°(R d_j)]_j,   Gamma = expm1(D D')

DCT's functional loss (Mack and Turner 2024, eq. 3) is a squared distance of functions; its minimum over output vectors
is a constant less this. For orthonormal atoms it is MELBO's reward over exp(1) - 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def explained(effects: Float[Tensor, "k d_out"], atoms: Float[Tensor, "k d_in"], ridge: float) -> Float[Tensor, ""]:
    gamma = torch.expm1(atoms @ atoms.T) + ridge * torch.eye(len(atoms)).to(atoms)
    factor = torch.linalg.cholesky(gamma)
    return torch.linalg.solve_triangular(factor, effects, upper=False).square().sum()
