"""Unit vectors in superposition, as coherent as chance makes them, or less.

Coherence is the largest |cos| of any two. No n unit vectors in d < n dimensions have less than (Welch 1974)

    sqrt((n - d) / (d (n - 1)))

Vectors are moved apart by the gradient of sum_ij max(0, |cos_ij| - target)^2 on the sphere.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softshrink

ROUNDS = 1000
STEP = 0.5
"""One pair alone loses its excess in one round."""
LONGEST = 0.1
"""No vector moves further in one round: in a crowd all would jump to the same place."""
MARGIN = 0.98
"""Rounds aim below the target by this factor, so that they end."""
CHUNK = 2048
"""Vectors compared with all others at once."""


def random_units(count: int, d_in: int, rng: torch.Generator) -> Float[Tensor, "count d_in"]:
    vectors = torch.randn(count, d_in, generator=rng)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def units(count: int, d_in: int, coherence: float | None, rng: torch.Generator) -> Float[Tensor, "count d_in"]:
    """Return random unit vectors, moved until no two have |cos| above `coherence`; None leaves them random.

    Raises ValueError when that many are not found.
    """
    vectors = random_units(count, d_in, rng)
    if coherence is None:
        return vectors
    check_coherence(count, d_in, coherence)
    if coherence == 0:
        return orthonormal(vectors)
    least = 1.0
    for _ in range(ROUNDS):
        forces, largest = overlaps(vectors, coherence)
        if largest <= coherence:
            return vectors
        least = min(least, largest)
        vectors = vectors - torch.renorm(STEP * forces, 2, 0, LONGEST)
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    raise ValueError(
        f"no {count} directions in {d_in} dimensions of coherence {coherence} were found in {ROUNDS} rounds, "
        f"only of {least:.3f}; the Welch bound is {welch_bound(count, d_in):.3f}: raise coherence"
    )


def overlaps(vectors: Float[Tensor, "count d_in"], target: float) -> tuple[Float[Tensor, "count d_in"], float]:
    """Return the force on each vector from those too near it, and the largest |cos| of two."""
    forces, largest = torch.zeros_like(vectors), 0.0
    for start in range(0, len(vectors), CHUNK):
        cosines = vectors[start : start + CHUNK] @ vectors.T
        cosines.diagonal(start).zero_()
        largest = max(largest, float(cosines.abs().max()))
        forces[start : start + CHUNK] = softshrink(cosines, MARGIN * target) @ vectors
    return forces, largest


def orthonormal(vectors: Float[Tensor, "count d_in"]) -> Float[Tensor, "count d_in"]:
    """Return orthonormal vectors by Gram-Schmidt: the first keeps its direction."""
    q, r = torch.linalg.qr(vectors.double().T)
    return (q * r.diagonal().sign()).T.float().contiguous()


def welch_bound(count: int, d_in: int) -> float:
    """Return the least coherence of `count` unit vectors in `d_in` dimensions; 0 when they can be orthogonal."""
    return math.sqrt((count - d_in) / (d_in * (count - 1))) if count > d_in else 0.0


def check_coherence(count: int, d_in: int, coherence: float) -> None:
    """Raise ValueError for a coherence below the Welch bound or above 1."""
    bound = welch_bound(count, d_in)
    if not bound <= coherence <= 1:
        raise ValueError(
            f"coherence is {coherence}, but the largest |cos| of {count} directions in {d_in} dimensions lies between "
            f"{bound:.3f} (the Welch bound) and 1; choose from there, raise d_in or lower factors"
        )
