"""Squared reconstruction error, summed over coordinates, averaged over tokens: mean |x - x_hat|^2."""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Term):
    family: ClassVar[Family] = "reconstruction"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        error = (step.x_hat - step.x).square().sum()
        return TermOutput(error / len(step.x), {"fvu": error / step.spread})
