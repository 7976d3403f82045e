"""Decoder orthogonality, fourth powers of all cosines, in random chunks (a p-frame potential, p = 4).

    1/m sum_i sum_{j != i} cos(d_i, d_j)^4,   estimated from pairs within a chunk

The squares' sum (`frame_potential`) is the same for every tight frame, copies of a basis among them; fourth powers
are least where cosines are even, and tell copies apart: 64 atoms in 16 dimensions sum to 192 as copies of a basis and
to about 64 * 63 * 3 / (16 * 18) = 42 at random (Ehler and Okoudjou 2012, Minimization of the probabilistic p-frame
potential). Opposite atoms are charged as copies are.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.serialise import added
from unbraid.config.settings import TwoOrMore
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.metric import Metric, atoms_in


@dataclass(frozen=True, kw_only=True)
class FourthPower(Term):
    every: int = 5
    chunk: TwoOrMore = 512
    """Atoms compared with one another; the partition is drawn anew each time. The sum is scaled to all pairs, so that
    smaller chunks cost less and only add noise."""
    metric: Metric = added("trained")
    """Measure cosines of atoms as trained, or of the directions they write along in raw activations: another matter
    where activations are whitened."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        atoms = atoms_in(self.metric, step)
        order = sent(torch.randperm(len(atoms), generator=step.rng), atoms.device)
        parts = atoms.index_select(0, order).split(self.chunk)
        pairs = sum(len(part) * (len(part) - 1) for part in parts)
        total = torch.stack([(part @ part.T).fill_diagonal_(0.0).square().square().sum() for part in parts]).sum()
        loss = (len(atoms) - 1) * total / max(1, pairs)
        d_in = atoms.shape[1]
        random = 3 * max(1, len(atoms) - 1) / (d_in * (d_in + 2))
        return TermOutput(loss, {"over_random": loss / random})
