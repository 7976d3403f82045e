"""Matryoshka: the mean error of nested prefixes of the dictionary (Bussmann et al. 2025, eq. 2).

1/L sum_l |x - b_dec - z[:w_l] @ W_dec[:w_l]|^2,   w_1 < ... < w_L = d_sae
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import MinLen

from unbraid.config.settings import ShareAboveZero
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class NestedReconstruction(Term):
    shares: Annotated[tuple[ShareAboveZero, ...], MinLen(1)] = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
    """Prefix widths as shares of d_sae, ascending to 1 (the fractions of dictionary_learning's README, cumulated)."""
    family: ClassVar[Family] = "reconstruction"
    standard: ClassVar[bool] = True

    def check_together(self) -> None:
        if list(self.shares) != sorted(self.shares) or not math.isclose(self.shares[-1], 1):
            raise ValueError(f"shares {self.shares} must ascend and end at 1: the last prefix is the whole dictionary")

    def __call__(self, step: Step) -> TermOutput:
        d_sae = step.dictionary.d_sae
        widths = sorted({*(max(1, round(share * d_sae)) for share in self.shares[:-1]), d_sae})
        centred = (step.x - step.dictionary.b_dec).unsqueeze(1)
        errors = (step.z.decode_nested(step.dictionary.W_dec, widths) - centred).square().sum((0, 2))
        return TermOutput(errors.mean() / len(step.x), {"fvu": errors[-1] / step.spread})
