"""Dependence of any shape between all pairs of latents: HSIC (Gretton et al. 2005), for every pair at once.

    1/n sum_(i != j) |Cov(phi_i, phi_j)|^2,   phi = [u, sin w_k u, 1 - cos w_k u]_k rms / deviation,   u = z / rms

over n latents compared; rms is that of active values, deviation that of all, moving averages without gradient. On
average over frequencies w, drawn anew every step and for every latent by itself from the kernel's spectrum N(0, 1), the
waves are the Gaussian kernel of width 1 at any distance (random Fourier features, Rahimi & Recht 2007): latents draw
apart, so the mean of a product of two kernels is the product of their means. Fixed frequencies would be a kernel that
takes some dependent latents for independent. u keeps plain correlation in the sum, of large values too, which a kernel
of width 1 cannot tell apart. All features vanish where the latent does, so they are as sparse as the code (1 - cos
covaries as -cos does). The gate itself is left out: it has no gradient, and every feature jumps with it. Copies give
about 2 to 4 a pair while they fire rarely. Products of covariances are unbiased, by two halves of a sub-batch
(`pair_sums`), so the sum may be negative.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveInt, ShareBelowOne, TwoOrMore
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import split_half, split_in_halves


@dataclass(frozen=True, kw_only=True)
class Hsic(Term):
    start: float = 0.1
    rows: TwoOrMore = 1024
    """Rows compared, in two halves; cost grows with the square."""
    waves: PositiveInt = 2
    """Frequencies drawn for each latent: 1 + 2 * waves features a latent. More make the sum less noisy."""
    rarest: ShareBelowOne = 1e-3
    """Firing rate that a latent needs to be compared; below it, dividing by the deviation would make it all noise."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that features are scaled by."""
    family: ClassVar[Family] = "independence"

    def __call__(self, step: Step) -> TermOutput:
        average, deviation = averaged(step.z, step.memory, self.decay)
        kept, rms = average.living(self.rarest), average.rms().clamp_min(1e-12)

        first, second = split_in_halves(step.z, self.rows, kept, step.rng)
        frequencies = drawn(step.z.d_sae, self.waves, step.rng).to(step.z.values)

        def phi(z: Float[Tensor, "nnz 1"], latents: Int[Tensor, " nnz"]) -> Float[Tensor, "nnz r"]:
            waves = features(z / rms[latents].unsqueeze(1), frequencies[latents])
            return waves * (rms / deviation)[latents].unsqueeze(1)

        first, second = first.mapped(phi), second.mapped(phi)
        loss = split_half(first, second) / max(1, len(kept))
        return TermOutput(loss, {"compared": step.x.new_tensor(len(kept))})


def drawn(latents: int, waves: int, rng: torch.Generator) -> Float[Tensor, "latents waves"]:
    """Sizes of normal variables, one from each of `waves` parts of equal probability: less noisy than free draws, and
    as right on average. Waves of -w are those of w."""
    part = (torch.arange(waves) + torch.rand(latents, waves, generator=rng)) / waves
    return torch.erfinv(part.clamp_max(1 - 1e-6)) * math.sqrt(2)


def features(u: Float[Tensor, "nnz 1"], frequencies: Float[Tensor, "nnz waves"]) -> Float[Tensor, "nnz r"]:
    """u, and waves whose inner products are on average exp(-(u - v)^2 / 2), up to functions of u or v alone."""
    angles, amplitude = u * frequencies, frequencies.shape[1] ** -0.5
    return torch.cat([u, amplitude * angles.sin(), amplitude * (1 - angles.cos())], 1)
