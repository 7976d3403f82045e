"""Decoder orthogonality, max-cosine in random chunks (OrtSAE, arXiv 2509.22033).

    mean_i max_{j != i in chunk(i)} relu(cos(d_i, d_j))^2

The nearest neighbours are found without gradient, a few rows at a time; only the chosen m cosines are
differentiated, which equals the dense gradient away from ties.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.objective import Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Orthogonality(Term):
    weight: float = 0.25  # as reimplemented in C2R's ort.py; unverified against the paper
    every: int = 5
    chunk: int = 8192
    """Atoms compared with one another; the partition is drawn anew each time."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)

    def __call__(self, step: Step) -> TermOutput:
        atoms = step.dictionary.W_dec
        order = torch.randperm(atoms.shape[0], generator=step.rng).to(atoms.device)
        nearest = torch.cat([nearest_atoms(atoms.detach(), part) for part in order.split(self.chunk)])
        cosines = (atoms.index_select(0, order) * atoms.index_select(0, nearest)).sum(1)
        return TermOutput(cosines.relu().square().mean(), {"max_cosine": cosines.mean()})


def nearest_atoms(
    atoms: Float[Tensor, "d_sae d_in"], part: Int[Tensor, " chunk"], rows: int = 1024
) -> Int[Tensor, " chunk"]:
    """For each atom of `part`, the one of the others it has the largest cosine with; itself when it is alone."""
    own = atoms[part]
    best = []
    for start in range(0, len(part), rows):
        cosines = own[start : start + rows] @ own.T
        diagonal = torch.arange(cosines.shape[0], device=cosines.device)
        cosines[diagonal, diagonal + start] = -torch.inf if len(part) > 1 else 0.0
        best.append(cosines.argmax(1))
    return part[torch.cat(best)]
