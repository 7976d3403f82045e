"""Squared reconstruction error, summed over coordinates, averaged over tokens: mean |x - x_hat|^2."""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.squared_error import squared_error


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Term):
    family: ClassVar[Family] = "reconstruction"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        error = squared_error(step.x_hat, step.x)
        return TermOutput(error / len(step.x), step.fvu(error))
