"""The nearest other atom of each atom, in random chunks: the neighbours that decoder penalties keep apart.

Nothing of d_sae x d_sae is ever formed: atoms meet the others of their chunk alone, a few rows at a time.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.system.devices import sent


def nearest_atoms(
    atoms: Float[Tensor, "d_sae d_in"], part: Int[Tensor, " chunk"], rows: int = 512
) -> Int[Tensor, " chunk"]:
    """For each atom of `part`, the one of the others it has the largest cosine with, the first of equals; itself when
    it is alone."""
    own = atoms[part]
    best = torch.full_like(own[:, 0], -torch.inf)
    nearest = torch.arange(len(part), device=own.device)
    for start in range(0, len(part), rows):
        # A pair's cosine is computed once and serves both: from the atoms before, this block has heard already.
        cosines = own[start : start + rows] @ own[start:].T
        cosines.fill_diagonal_(-torch.inf)
        block, after = cosines.shape[0], cosines[:, cosines.shape[0] :]
        found = [(slice(start, start + block), start, cosines)]
        if after.numel():
            # Reduced along its rows, a transposed copy is over twice as fast as the columns of the original.
            found.append((slice(start + block, None), start, after.T.contiguous()))
        for which, first, table in found:
            largest, index = table.max(1)
            better = largest > best[which]
            best[which] = torch.where(better, largest, best[which])
            nearest[which] = torch.where(better, index + first, nearest[which])
    return part[nearest]


def drawn_neighbours(
    atoms: Float[Tensor, "d_sae d_in"], chunk: int, rng: torch.Generator
) -> tuple[Int[Tensor, " d_sae"], Int[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """Atoms in a random order, the nearest of each within its chunk of that order, and their cosines; 0 for an atom
    that is alone in its chunk.

    Neighbours are found without gradient; only these d_sae cosines are differentiable, which equals the dense gradient
    away from ties.
    """
    order = sent(torch.randperm(atoms.shape[0], generator=rng), atoms.device)
    nearest = torch.cat([nearest_atoms(atoms.detach(), part) for part in order.split(chunk)])
    cosines = (atoms.index_select(0, order) * atoms.index_select(0, nearest)).sum(1)
    return order, nearest, cosines.masked_fill(order == nearest, 0.0)


def nearest_to(atoms: Float[Tensor, "d_sae d_in"], which: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """For each of a few atoms, the one of all others it has the largest cosine with."""
    cosines = atoms[which] @ atoms.T
    cosines[torch.arange(len(which), device=atoms.device), which] = -torch.inf
    return cosines.argmax(1)
