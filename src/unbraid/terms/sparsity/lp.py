"""L_p sparsity: sum of |z_i|^p over active latents, averaged over tokens; p = 1/2 is the square root's.

Below p = 1 large latents are charged less than L1 charges them, so they shrink less. Near 0 the gradient |z|^(p - 1)
is without bound: (|z| + floor)^p - floor^p is charged instead. SAELens's `lp_norm` is the 1/p-th power of the sum.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import NonNegativeFloat, PositiveFloat
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Lp(Term):
    p: PositiveFloat = 0.5
    """The exponent, above 0; 1 is L1."""
    floor: NonNegativeFloat = 1e-3
    """Added to every size, in normalised activations."""
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        values, _, _ = step.z.entries()
        charged = (values.abs() + self.floor).pow(self.p) - self.floor**self.p
        return TermOutput(step.over_latents(charged.sum()) / step.z.batch)
