"""Additivity of effects: single pushes, in some contexts, as a prediction of pushes together in others.

    r2 = 1 - sum |D_A,t - sum_(j in A) u_j|^2 / sum |D_A,t|^2,        u_j = mean over the first half's tokens of D_j,t
    ceiling = sum |mean_t D_A,t|^2 / sum |D_A,t|^2

over sets A of two to four and the tokens t of the second half of the contexts, D without the skip path. `ceiling` is
the best that a prediction can do that does not see the context: the rest is no interaction. Where downstream layers
are nearly blind they are nearly linear: r2 says nothing without the size of the effects.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.effects.effect import COPIES, everywhere, token_effects
from unbraid.sources.base import Contexts

SETS = (2, 3, 4)
"""How many are pushed together."""


class Additivity(NamedTuple):
    """The r2 of single effects as a prediction of joint ones, and the best r2 that is possible without the context."""

    r2: float
    ceiling: float


@torch.no_grad()
def additivity(contexts: Contexts, pushes: Float[Tensor, "k d_in"]) -> Additivity:
    """Measure additivity over all cyclic runs of 2, 3 and 4 consecutive pushes. NaN with fewer than five pushes, or no
    effect to explain."""
    sequences = contexts.mask.nonzero()[:, 0].to(pushes.device)
    early = sequences < contexts.mask.shape[0] / 2
    if len(pushes) <= max(SETS) or bool(early.all()) or not bool(early.any()):
        return Additivity(math.nan, math.nan)
    alone = torch.cat([effects[:, early].mean(1) for effects in in_parts(contexts, pushes)])
    sets = rings(len(pushes)).to(pushes)
    predicted = (sets @ alone).split(COPIES)
    missed = fixed = total = 0.0
    for effects, guess in zip(in_parts(contexts, sets @ pushes), predicted, strict=True):
        late = effects[:, ~early].double()
        total += float(late.square().sum())
        missed += float((late - guess.unsqueeze(1)).square().sum())
        fixed += float(late.mean(1).square().sum()) * late.shape[1]
    return Additivity(1 - missed / total, fixed / total) if total > 0 else Additivity(math.nan, math.nan)


def rings(count: int) -> Bool[Tensor, "set count"]:
    """Return all cyclic runs of 2, 3 and 4 consecutive pushes, as masks."""
    places = torch.arange(count)
    after = (places - places.unsqueeze(1)) % count
    return torch.cat([after < size for size in SETS])


def in_parts(contexts: Contexts, pushes: Float[Tensor, "k d_in"]) -> Iterator[Float[Tensor, "some token d_out"]]:
    """Yield token effects, a few pushes at a time."""
    return (token_effects(contexts, everywhere(part, contexts)) for part in pushes.split(COPIES))
