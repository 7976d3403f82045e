"""Soft orthogonalisation: every atom is pushed off the atoms it is most like (SOGI, the DCT authors' successor of QR).

    mean_i T log sum_(j != i in chunk(i)) exp(d_i . d_j / T)

The gradient on d_i of its own row is sum_j softmax_j(d_i . d_j / T) d_j, which SOGI subtracts ten times over between
power iterations; here it is one term among others, at the optimiser's pace. Without SOGI's bias on long gradients:
there are none here. T is small compared with cosines of atoms that are alike: at T -> 0 only the nearest counts.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import PositiveFloat, TwoOrMore
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.metric import Metric, atoms_in


@dataclass(frozen=True, kw_only=True)
class Repulsion(Term):
    every: int = 5
    temperature: PositiveFloat = 0.1
    """T, in cosines. SOGI has 1, at which all atoms of a chunk repel nearly alike."""
    chunk: TwoOrMore = 512
    """Atoms compared with one another, drawn anew each time; cost grows with it."""
    sample: TwoOrMore = 4096
    """Atoms charged each time."""
    metric: Metric = added("trained")
    """Measure cosines of atoms as trained, or of the directions they write along in raw activations: another matter
    where activations are whitened."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        atoms = atoms_in(self.metric, step)
        order = sent(torch.randperm(len(atoms), generator=step.rng)[: self.sample], atoms.device)
        if len(order) < 2:
            return step.no_loss()
        rows = [repelled(atoms.index_select(0, part), self.temperature) for part in order.split(self.chunk)]
        return TermOutput(torch.cat(rows).mean())


def repelled(atoms: Float[Tensor, "chunk d_in"], temperature: float) -> Float[Tensor, " chunk"]:
    """T log sum exp over the others of a chunk, atom by atom; nothing for one that is alone."""
    if len(atoms) < 2:
        return atoms.new_zeros(len(atoms))
    hidden = torch.eye(len(atoms), dtype=torch.bool, device=atoms.device)
    cosines = (atoms @ atoms.T).masked_fill(hidden, -torch.inf)
    return temperature * torch.logsumexp(cosines / temperature, 1)
