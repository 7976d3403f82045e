"""RICA's contrast in place of L1: sum of log cosh(sharpness z) / sharpness, averaged over tokens (Le et al. 2011).

Quadratic where sharpness * z is small, then L1 less log(2) / sharpness. With it, reconstruction ICA and a sparse
autoencoder are one objective. RICA's W W'x is unrectified and charged on both sides; here only active latents are.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import softplus

from unbraid.config.settings import PositiveFloat
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class LogCosh(Term):
    sharpness: PositiveFloat = 3.0
    """How soon the quadratic becomes a line: at latents of about 1 / sharpness."""
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        values, _, _ = step.z.entries()
        size = self.sharpness * values.abs()
        # cosh itself overflows float32 from 89 on.
        charges = size + softplus(-2 * size) - math.log(2)
        return TermOutput(step.over_latents(charges.sum()) / (self.sharpness * step.z.batch))
