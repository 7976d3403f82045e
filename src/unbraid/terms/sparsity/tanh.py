"""Tanh sparsity: sum of tanh(scale z_i |d_i|), averaged over tokens (Anthropic, January 2025 update).

Like a count for latents above 1 / scale, like L1 below. Atoms have unit norm, so |d_i| = 1. Latents are not negative,
and no absolute value is taken: it would cut off the gradient of those just below JumpReLU's threshold, which are 0. The
update lets that gradient reach the encoder too; ours, as Rajamanoharan et al. 2024, thresholds alone.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import PositiveFloat
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Tanh(Term):
    scale: PositiveFloat = 4.0
    """Its slope at 0, for normalised activations (the update's c)."""
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.over_latents((self.scale * step.z.values).tanh().sum()) / step.z.batch)
