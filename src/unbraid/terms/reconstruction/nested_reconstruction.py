"""Matryoshka: the mean error of nested prefixes of the dictionary (Bussmann et al. 2025, eq. 2), and its form of 2026.

    E_l = 1/N sum |x - b_dec - z[:w_l] @ W_dec[:w_l]|^2,   w_1 < ... < w_L = d_sae
    mean:  1/L (u E_1 + ... + u E_{L-1} + E_L)      sum:  u E_1 + ... + u E_{L-1} + E_L,     u = `inner_weight`

Detached, an inner level moves only the latents that it adds: what narrower ones reconstruct is passed on without
gradient. The whole dictionary's error moves all. In the order of frequency, prefixes are of the latents that fire most
by now, looked up anew at every step (weights stay where they are: moving them would leave Adam's moments behind); the
finished dictionary is saved in that order, so that its prefixes are nested SAEs again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import MinLen
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import NonNegativeFloat, ShareAboveZero
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.moving_average import move, warm_decay
from unbraid.terms.statistics.squared_error import squared_errors_of_levels

DECAY = 0.99
"""Weight of the past in firing rates, as in the entries of that table."""
RATE = "rate"


@dataclass(frozen=True, kw_only=True)
class NestedReconstruction(Term):
    shares: Annotated[tuple[ShareAboveZero, ...], MinLen(1)] = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
    """Prefix widths as shares of d_sae, ascending to 1 (the fractions of dictionary_learning's README, cumulated)."""
    detached: bool = added(False)
    """Let an inner level move only the latents that it adds to the one before."""
    order: Literal["index", "frequency"] = added("index")
    """Order in which latents fill the prefixes: as they are numbered, or most often active first."""
    levels: Literal["mean", "sum"] = added("mean")
    """Add the levels' errors up, or take their mean."""
    inner_weight: NonNegativeFloat = added(1.0)
    """Weight of every level but the whole dictionary's."""
    family: ClassVar[Family] = "reconstruction"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True
    per_latent: ClassVar[tuple[str, ...]] = (RATE,)

    def check_together(self) -> None:
        if list(self.shares) != sorted(self.shares) or not math.isclose(self.shares[-1], 1):
            raise ValueError(f"shares {self.shares} must ascend and end at 1: the last prefix is the whole dictionary")

    def widths(self, d_sae: int) -> list[int]:
        """Return the number of latents in each prefix, ascending to `d_sae`; equal ones count once."""
        return sorted({*(max(1, round(share * d_sae)) for share in self.shares[:-1]), d_sae})

    def saved_order(self, memory: Mapping[str, Tensor]) -> Int[Tensor, " d_sae"] | None:
        return by_rate(memory[RATE]) if self.order == "frequency" and RATE in memory else None

    def __call__(self, step: Step) -> TermOutput:
        z, atoms = step.z, step.dictionary.W_dec
        if self.order == "frequency":
            now = step.group.mean(z.firings().to(step.x.dtype) / z.batch)
            order = by_rate(move(step.memory, RATE, now, warm_decay(step.memory, DECAY)))
            z, atoms = z.in_order(order), atoms.index_select(0, order)
        levels = z.decode_nested(atoms, self.widths(z.d_sae))
        inner, whole = self._errors(levels, step)
        total = self.inner_weight * inner + whole
        count = levels.shape[1] if self.levels == "mean" else 1
        return TermOutput(total / (count * len(step.x)), step.fvu(whole))

    def _errors(
        self, levels: Float[Tensor, "batch level d_in"], step: Step
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the squared errors of all prefixes but the whole, summed, and of the whole."""
        inner, centre = levels[:, :-1], step.dictionary.b_dec
        if not self.detached:
            return squared_errors_of_levels(levels, centre, step.x)
        whole = (levels[:, -1] - (step.x - centre)).square().sum()
        if not inner.shape[1]:
            return levels.new_zeros(()), whole
        before = inner[:, :-1]
        alone = torch.cat([inner[:, :1], inner[:, 1:] - before + before.detach()], 1)
        # The offset, too, is moved by the narrowest level and the whole alone.
        centres = torch.cat([centre.unsqueeze(0), centre.detach().expand(inner.shape[1] - 1, -1)])
        return (alone + centres - step.x.unsqueeze(1)).square().sum(), whole


def by_rate(rate: Float[Tensor, " d_sae"]) -> Int[Tensor, " d_sae"]:
    """Return the latents in the order of their firing rates, most often active first, equal ones as numbered."""
    return rate.argsort(descending=True, stable=True)
