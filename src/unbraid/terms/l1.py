"""L1 sparsity: sum of |z_i| |d_i|, averaged over tokens (Bricken et al. 2023). Atoms have unit norm, so |d_i| = 1."""

from dataclasses import dataclass

from unbraid.objective import Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class L1(Term):
    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.z.values.abs().sum() / step.z.batch)
