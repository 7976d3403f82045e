"""Minimal pairs: one cause was changed, so few latents should change (weak supervision by counterfactuals).

    l1     mean over pairs of sum_i |d_i|                   d_i = (z_i(x') - z_i(x)) / scale_i  (after SSAE, 2502.12179)
    ada    mean over pairs of sum_(i: |d_i| < tau) d_i^2    tau = half the pair's largest |d_i|  (after Ada-GVAE)

Ada-GVAE (Locatello et al. 2020) averages the latents that a pair seems to share, those that differ by less than midway
between the least and the most; over sparse codes the least is always 0. Averaging them and paying for it is the same as
the square. Scale: as in slowness, a latent's usual size where it is active, without gradient.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.token_pairs import code_differences, usual_size


@dataclass(frozen=True, kw_only=True)
class Invariance(Term):
    form: Literal["l1", "ada"] = "ada"
    """What differences cost: all of them their size, or the smaller ones their square."""
    reads: ClassVar[tuple[Reads, ...]] = ("counterfactuals",)
    family: ClassVar[Family] = "weak supervision"

    def __call__(self, step: Step) -> TermOutput:
        pairs = step.counterfactuals()
        count = len(pairs.x)
        z = step.dictionary.unchecked_codes(torch.cat([pairs.x, pairs.changed]).to(step.x))
        one, other = torch.arange(2 * count, device=step.x.device).view(2, count)
        found = code_differences(z, one, other)
        moved = found.change.abs() / usual_size(z, step.memory)[found.latents]
        kept = torch.ones_like(moved) if self.form == "l1" else shared(moved.detach(), found.pairs, count)
        cost = moved if self.form == "l1" else moved.square()
        changed = (moved.detach() > 0).sum() / max(1, count)
        return TermOutput((kept * cost).sum() / max(1, count), {"changed": changed.to(moved.dtype)})


def shared(moved: Float[Tensor, " entry"], pairs: Int[Tensor, " entry"], count: int) -> Float[Tensor, " entry"]:
    """1 where a difference is below half the largest of its pair."""
    largest = moved.new_zeros(count).scatter_reduce(0, pairs, moved, "amax")
    return (moved < largest[pairs] / 2).to(moved.dtype)
