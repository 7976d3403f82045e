"""Alignment of atoms with factors: |cos| with a factor's direction, or with its subspace where it is a manifold.

    alignment(atom, manifold) = |P atom| / |atom|,   P the projection on the manifold's subspace

It is the largest cosine of the atom with any point of the circle or sphere, and for one direction the |cos|.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.metrics.matching import cosines, unit

Subspaces = Mapping[int, Float[Tensor, "dimensions d_in"]]


def alignment(
    atoms: Float[Tensor, "a d_in"], directions: Float[Tensor, "factors d_in"], subspaces: Subspaces
) -> Float[Tensor, "a factors"]:
    """Return the alignment of every atom with every factor."""
    found = cosines(atoms, directions).abs()
    for factor, basis in subspaces.items():
        found[:, factor] = share_in_subspace(atoms, basis)
    return found


def share_in_subspace(atoms: Float[Tensor, "a d_in"], basis: Float[Tensor, "dimensions d_in"]) -> Float[Tensor, " a"]:
    """Return the share of each atom's length in a subspace."""
    return torch.linalg.vector_norm(unit(atoms) @ basis.to(atoms).T, dim=1)


def one_direction(factors: int, subspaces: Subspaces) -> Bool[Tensor, " factors"]:
    """Return a mask of the factors that are one direction, or none: no manifolds."""
    alone = torch.ones(factors, dtype=torch.bool)
    alone[list(subspaces)] = False
    return alone
