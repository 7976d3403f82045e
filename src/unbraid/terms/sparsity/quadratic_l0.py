"""Quadratic L0 penalty: the mean number of active latents is to be the target, no more and no fewer (JumpReLU).

    (L0 / target - 1)^2,    L0: mean over the batch; its gradient reaches thresholds alone, as `l0`'s does

Rajamanoharan et al. 2024 (arXiv 2407.14435) train to an L0 with it, Gemma Scope 2 every SAE, with a penalty like
`frequency`. It needs no controller: the pull grows with the distance. Give it a weight, not an L0 target.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import PositiveFloat
from unbraid.dictionary.activations.base import Activation
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.above_threshold import mean_l0, thresholded


@dataclass(frozen=True, kw_only=True)
class QuadraticL0(Term):
    target: PositiveFloat = 32.0
    """Wanted mean number of active latents a token."""
    family: ClassVar[Family] = "sparsity"
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        thresholded(activation)

    def __call__(self, step: Step) -> TermOutput:
        l0 = mean_l0(step)
        return TermOutput((l0 / self.target - 1).square(), {"l0": l0})
