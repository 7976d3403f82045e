"""Retraction: the nearest orthonormal matrix.

    polar(A) = (A A')^(-1/2) A = U V',   A = U S V'

Newton and Schulz's iteration A <- 3/2 A - 1/2 A A' A converges to it quadratically while |A A' - I| < 1, using matrix
products alone; matrices further away take the SVD (Higham 2008, Functions of Matrices, chapter 8).
"""

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 2e-6
"""Largest entry of |A A' - I| that counts as orthonormal: some ten times the rounding of float32 products."""
STEPS = 12
"""Enough from |A A' - I| = 0.99: the error is 3/4 of its square, and the first few steps gain little."""


@torch.no_grad()
def orthonormalise_blocks(atoms: Float[Tensor, "d_sae d_in"], size: int) -> Float[Tensor, "d_sae d_in"]:
    """Replace every `size` atoms in a row by the orthonormal ones nearest to them all together. `size` divides d_sae
    and is at most d_in."""
    return polar(atoms.unflatten(0, (-1, size))).flatten(0, 1)


@torch.no_grad()
def polar(matrices: Float[Tensor, "block row d_in"]) -> Float[Tensor, "block row d_in"]:
    """Return the nearest matrix with orthonormal rows to each (in Frobenius norm; any of them when rank is missing)."""
    out = matrices
    error = off_orthonormal(out)
    near = torch.linalg.matrix_norm(error) < 0.99
    for _ in range(STEPS):
        if not bool((error.abs().amax((1, 2)) > TOLERANCE)[near].any()):
            break
        out = out - 0.5 * error @ out
        error = off_orthonormal(out)
    far = ~(near & (error.abs().amax((1, 2)) <= TOLERANCE))
    if bool(far.any()):
        left, _, right = torch.linalg.svd(matrices[far], full_matrices=False)
        out = out.clone()
        out[far] = left @ right
    return out


def off_orthonormal(matrices: Float[Tensor, "block row d_in"]) -> Float[Tensor, "block row row"]:
    """Return A A' - I."""
    return matrices @ matrices.mT - torch.eye(matrices.shape[1]).to(matrices)
