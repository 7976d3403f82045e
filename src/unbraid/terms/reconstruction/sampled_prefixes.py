"""Matryoshka with prefixes drawn anew at every step, so that no width is privileged (Bussmann et al. 2025; Nabeshima).

1/L sum_l |x - b_dec - z[:w_l] @ W_dec[:w_l]|^2,   w_L = d_sae, the others drawn with P(width <= w) = (w / d_sae)^power

The distribution is that of the authors' released code (matryoshka-saes), which also keeps latents ordered by what they
contribute and charges L1 prefix by prefix; here a width drawn twice counts once, and nothing is reordered.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import PositiveFloat, PositiveInt
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class SampledPrefixes(Term):
    prefixes: PositiveInt = 10
    """How many, the whole dictionary counted."""
    power: PositiveFloat = 0.5
    """Exponent of the widths' distribution, above 0: 1 is uniform, smaller gives narrower prefixes."""
    family: ClassVar[Family] = "reconstruction"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def widths(self, d_sae: int, rng: torch.Generator) -> list[int]:
        """Ascending, each once, ending at d_sae."""
        drawn = torch.rand(self.prefixes - 1, generator=rng, dtype=torch.float64).pow(1 / self.power) * d_sae
        return sorted({*(max(1, round(width)) for width in drawn.tolist()), d_sae})

    def __call__(self, step: Step) -> TermOutput:
        dictionary = step.dictionary
        widths = self.widths(dictionary.d_sae, step.rng)
        centred = (step.x - dictionary.b_dec).unsqueeze(1)
        errors = (step.z.decode_nested(dictionary.W_dec, widths) - centred).square().sum((0, 2))
        return TermOutput(errors.mean() / len(step.x), step.fvu(errors[-1]))
