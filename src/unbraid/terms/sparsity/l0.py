"""L0 sparsity: the number of pre-activations above their thresholds, averaged over tokens, for JumpReLU.

The count's gradient reaches thresholds alone (Rajamanoharan et al. 2024, eq. 12; `terms.statistics.above_threshold`).
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.dictionary.activations.base import Activation
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.above_threshold import mean_l0, thresholded


@dataclass(frozen=True, kw_only=True)
class L0(Term):
    signed: ClassVar[bool] = True
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        thresholded(activation)

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(mean_l0(step))
