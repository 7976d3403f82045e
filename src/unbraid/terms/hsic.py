"""Dependence of any shape between all pairs of latents: HSIC (Gretton et al. 2005), for every pair at once.

    1/n sum_(i != j) |Cov(phi_i, phi_j)|^2,   phi = [u, sin w_k u, 1 - cos w_k u]_k rms / deviation,   u = z / rms

over n latents compared; rms is that of active values, deviation that of all, moving averages without gradient. The
waves are the Gaussian kernel of width 1 by Gauss-Hermite quadrature; random frequencies would need many more. u keeps
plain correlation in the sum, of large values too, which a kernel of width 1 cannot tell apart. All features vanish
where the latent does, so they are as sparse as the code (1 - cos covaries as -cos does). The gate itself is left out:
it has no gradient, and every feature jumps with it. Waves vary no more than u about 0, so copies give 1 to 4 a pair
while they fire rarely. Unbiased, by two halves of a sub-batch (`gram`), so the sum may be negative.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.gram import halves, split_half
from unbraid.moments import averaged
from unbraid.objective import Step, Term, TermOutput
from unbraid.settings import PositiveInt, ShareBelowOne, TwoOrMore


@dataclass(frozen=True, kw_only=True)
class Hsic(Term):
    start: float = 0.1
    rows: TwoOrMore = 1024
    """Rows compared, in two halves; cost grows with the square."""
    waves: PositiveInt = 2
    """Frequencies of the kernel: 1 + 2 * waves features a latent."""
    rarest: ShareBelowOne = 1e-3
    """Firing rate that a latent needs to be compared; below it, dividing by the deviation would make it all noise."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that features are scaled by."""

    def __call__(self, step: Step) -> TermOutput:
        average, deviation = averaged(step.z, step.memory, self.decay)
        kept, rms = average.living(self.rarest), average.rms().clamp_min(1e-12)

        def phi(z: Float[Tensor, "nnz 1"], latents: Int[Tensor, " nnz"]) -> Float[Tensor, "nnz r"]:
            return features(z / rms[latents].unsqueeze(1), self.waves) * (rms / deviation)[latents].unsqueeze(1)

        first, second = (half.mapped(phi) for half in halves(step.z, self.rows, kept, step.rng))
        loss = split_half(first, second) / max(1, len(kept))
        return TermOutput(loss, {"compared": step.x.new_tensor(len(kept))})


def features(u: Float[Tensor, "nnz 1"], waves: int) -> Float[Tensor, "nnz r"]:
    """u, and waves whose inner products are exp(-(u - v)^2 / 2), up to functions of u or v alone."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(2 * waves)
    frequencies, shares = (u.new_tensor(part[waves:]) for part in (nodes, 2 * weights / weights.sum()))
    angles, amplitudes = u * frequencies, shares.sqrt()
    return torch.cat([u, amplitudes * angles.sin(), amplitudes * (1 - angles.cos())], 1)
