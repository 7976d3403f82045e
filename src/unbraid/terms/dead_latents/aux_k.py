"""AuxK: dead latents learn to explain what the living ones leave over (Gao et al. 2024, section 2.4 and B.1).

    |e - e_hat|^2 / |e - mean e|^2,   e = x - x_hat (no gradient),   e_hat = the k_aux most active dead latents, decoded

Dense, but on the columns of dead latents only. Zero, and free, while nothing is dead.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import PositiveFloat
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class AuxK(Term):
    weight: float = 1 / 32  # Gao et al. 2024, A.2
    k_share: PositiveFloat = 0.5
    """Dead latents used a token, as a share of d_in (Gao et al. 2024, B.1)."""
    family: ClassVar[Family] = "dead latents"
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        dead = step.dead.nonzero().squeeze(1)
        if not dead.numel():
            return step.no_loss()
        dictionary = step.dictionary
        error = (step.x - step.x_hat).detach()
        W_enc, atoms = dictionary.W_enc.t().index_select(0, dead), dictionary.W_dec.index_select(0, dead)
        pre = torch.addmm(dictionary.b_enc.index_select(0, dead), step.x - dictionary.b_dec, W_enc.t())
        k = min(max(1, round(self.k_share * dictionary.d_in)), dead.numel())
        values, index = pre.topk(k, dim=1, sorted=False)
        explained = torch.zeros_like(pre).scatter(1, index, values.relu()) @ atoms
        scale = (error - error.mean(0)).square().sum().clamp_min(1e-12)
        return TermOutput((explained - error).square().sum() / scale)
