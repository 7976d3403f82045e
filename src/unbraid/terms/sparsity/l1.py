"""L1 sparsity: sum of |z_i| |d_i|, averaged over tokens (Bricken et al. 2023). Atoms have unit norm, so |d_i| = 1."""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class L1(Term):
    family: ClassVar[Family] = "sparsity"
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.z.values.abs().sum() / step.z.batch)
