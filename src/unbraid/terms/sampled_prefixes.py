"""Matryoshka with prefixes drawn anew at every step: no width is privileged (Bussmann et al. 2025, section 3.2).

1/L sum_l |x - b_dec - z[:w_l] @ W_dec[:w_l]|^2,   w_L = d_sae, the others from a Pareto distribution cut off at d_sae

P(width <= w) = (1 - w^-alpha) / (1 - d_sae^-alpha): at alpha 0 log-uniform, larger alpha gives narrower prefixes.
"""

import math
from dataclasses import dataclass

import torch

from unbraid.objective import Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class SampledPrefixes(Term):
    prefixes: int = 10
    """How many, the whole dictionary counted."""
    alpha: float = 0.5
    """Tail exponent of the widths' distribution, not below 0."""

    def check(self, name: str) -> None:
        super().check(name)
        if self.prefixes < 1 or self.alpha < 0:
            raise ValueError(
                f"term {name!r} has {self.prefixes} prefixes and alpha {self.alpha}; expected at least 1, and 0"
            )

    def widths(self, d_sae: int, rng: torch.Generator) -> list[int]:
        """Ascending, each once, ending at d_sae."""
        uniform = torch.rand(self.prefixes - 1, generator=rng, dtype=torch.float64)
        if self.alpha == 0:
            drawn = (uniform * math.log(d_sae)).exp()
        else:
            drawn = (1 - uniform * (1 - d_sae**-self.alpha)).pow(-1 / self.alpha)
        return sorted({*(min(d_sae, int(width)) for width in drawn.tolist()), d_sae})

    def __call__(self, step: Step) -> TermOutput:
        dictionary = step.dictionary
        widths = self.widths(dictionary.d_sae, step.rng)
        centred = (step.x - dictionary.b_dec).unsqueeze(1)
        errors = (step.z.decode_nested(dictionary.W_dec, widths) - centred).square().sum((0, 2))
        variance = (step.x - step.x.mean(0)).square().sum()
        return TermOutput(errors.mean() / len(step.x), {"fvu": errors[-1] / variance})
