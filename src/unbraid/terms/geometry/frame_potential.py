"""Frame potential: the sum of all squared cosines of two different atoms, exact, by way of a d_in x d_in matrix.

    1/m sum_i sum_{j != i} (d_i . d_j)^2 = (|D'D|_F^2 - sum_i |d_i|^4) / m

Benedetto and Fickus 2003. |D'D|_F^2 is at least m^2 / d_in, at every tight frame: copies of a basis reach it, so this
cannot tell splitting from spread (`fourth_power` can). For a linear decoder OroJaR's Var_v |J v|^2 over Rademacher v
(Wei et al. 2021) is 2m times this, exactly.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.serialise import added
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.metric import Metric, atoms_in


@dataclass(frozen=True, kw_only=True)
class FramePotential(Term):
    every: int = 5
    metric: Metric = added("trained")
    """Measure cosines of atoms as trained, or of the directions they write along in raw activations: another matter
    where activations are whitened."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        atoms = atoms_in(self.metric, step)
        whole = (atoms.T @ atoms).square().sum()
        loss = (whole - atoms.square().sum(1).square().sum()) / len(atoms)
        return TermOutput(loss, {"over_tight_frame": whole * atoms.shape[1] / len(atoms) ** 2})
