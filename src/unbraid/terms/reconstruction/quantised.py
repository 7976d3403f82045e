"""Latents that keep to a few magnitudes: latent quantisation (QLAE, arXiv 2305.18378) of what is active.

    1/B ( |x - x_hat(q)|^2 + commit sum |z - q|^2 ),   q = the nearest of the latent's levels, straight through

Every latent has its own positive levels; zero stays zero. Levels follow the values nearest to them by moving averages
(online k-means), in place of QLAE's gradient on the codebook. QLAE's encoder *is* quantised: as a penalty this only
prepares latents for it, with a reconstruction that may use any value; as the objective's `reconstruction` this is the
whole of it, save that the finished dictionary still encodes unrounded. QLAE's weight decay is `weight_decay`'s.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt, Share
from unbraid.dictionary.codes import Codes
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Quantised(Term):
    levels: PositiveInt = 8
    """Magnitudes a latent may have, besides zero."""
    commit: NonNegativeFloat = 1.0
    """Strength with which a latent is drawn to its level, relative to the error that rounding it makes. For orthogonal
    atoms the two are the same quantity."""
    decay: Share = 0.99
    """Of a level's moving average, in batches that have a value nearest to it."""
    family: ClassVar[Family] = "reconstruction"

    def only_in_training(self) -> str:
        return "its levels follow the codes in training and are not kept"

    def __call__(self, step: Step) -> TermOutput:
        values, _, latents = step.z.entries()
        levels, chosen = self._follow(step, values.detach(), latents)
        rounding = levels[latents, chosen] - values
        error = (step.dictionary.decode(rounded(step.z, rounding.detach())) - step.x).square().sum()
        loss = (error + self.commit * rounding.square().sum()) / len(step.x)
        use = torch.bincount(chosen, minlength=self.levels) / max(1, len(chosen))
        return TermOutput(loss, {**step.fvu(error), "levels_used": torch.special.entr(use).sum().exp()})

    @torch.no_grad()
    def _follow(
        self, step: Step, values: Float[Tensor, " nnz"], latents: Int[Tensor, " nnz"]
    ) -> tuple[Float[Tensor, "d_sae level"], Int[Tensor, " nnz"]]:
        """The levels, moved towards these values, and which of its latent's each value is nearest to."""
        levels = step.memory.get("levels", values.new_zeros(step.z.d_sae, self.levels))
        mean = mean_by(values, latents, step.z.d_sae)
        # A latent's first levels are evenly spaced around the mean of the first values seen of it.
        spread = (torch.arange(self.levels).to(values) + 0.5) * 2 / self.levels
        levels = torch.where((levels == 0).all(1, keepdim=True), mean.unsqueeze(1) * spread, levels)
        chosen = (levels[latents] - values.unsqueeze(1)).abs().argmin(1)
        wanted = mean_by(values, latents * self.levels + chosen, levels.numel()).view_as(levels)
        step.memory["levels"] = torch.where(wanted > 0, torch.lerp(wanted, levels, self.decay), levels)
        return step.memory["levels"], chosen


def mean_by(values: Float[Tensor, " nnz"], group: Int[Tensor, " nnz"], groups: int) -> Float[Tensor, " group"]:
    """The mean of each group's values; 0 of none."""
    return values.new_zeros(groups).index_add(0, group, values) / torch.bincount(group, minlength=groups).clamp_min(1)


def rounded(z: Codes, rounding: Float[Tensor, " nnz"]) -> Codes:
    """Return the codes with `rounding` added to the non-zero values, in the order of `entries`; gradients pass."""
    added = torch.zeros_like(z.values).masked_scatter(z.values.detach() != 0, rounding)
    return replace(z, values=z.values + added)  # pyright: ignore[reportArgumentType]  # both forms are dataclasses
