"""Local independent mechanisms: atoms active together should be orthogonal (after IMA, arXiv 2106.05200).

    mean over rows of -1/2 logdet( (1 - ridge) D_S D_S' + ridge I ),    S: the latents active in the row

IMA's contrast sum log |J_i| - log |det J| of the decoder is infinite with more latents than dimensions; over those a
row uses, with unit atoms, it is this. Zero for orthonormal atoms. Blind to duplicates that never fire together.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.dictionary.codes import Codes, starts
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class LocalIma(Term):
    every: int = 4
    rows: PositiveInt = 128
    """Rows of the batch looked at each time."""
    most: PositiveInt = 64
    """Latents of a row looked at, the most active: a row of an unsparse code would cost its square."""
    ridge: NonNegativeFloat = 1e-4
    """Two equal atoms must cost much and not everything."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "decoder")
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        rows = step.sampled_rows(self.rows)
        latents, active = supports(step.z, rows, self.most)
        atoms = step.dictionary.W_dec[latents]
        gram = (1 - self.ridge) * atoms @ atoms.mT
        both = active[:, :, None] & active[:, None, :]
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        gram = torch.where(both, gram + self.ridge * identity, identity)
        factor = torch.linalg.cholesky(gram)
        return TermOutput(-factor.diagonal(dim1=1, dim2=2).log().sum(1).mean())


def supports(z: Codes, rows: Int[Tensor, " row"], most: int) -> tuple[Int[Tensor, "row k"], Bool[Tensor, "row k"]]:
    """The `most` most active latents of each row, and which of the places are taken."""
    values, row, latent = (part.detach() for part in z.entries())
    order = values.abs().argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row, minlength=z.batch)
    width = max(1, min(most, int(counts.max()))) if len(counts) else 1
    place = torch.arange(width, device=row.device)
    active = place < counts[rows].clamp_max(width)[:, None]
    at = (starts(counts)[rows][:, None] + place).clamp_max(max(0, len(order) - 1))
    found = latent[order][at] if len(order) else torch.zeros_like(at)
    return torch.where(active, found, 0), active
