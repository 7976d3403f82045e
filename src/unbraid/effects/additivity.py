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

from unbraid.effects.effect import COPIES, everywhere, pooled_effect, token_effects
from unbraid.sources.base import Contexts

SETS = (2, 3, 4)
"""How many are pushed together."""


class Additivity(NamedTuple):
    """The r2 of single effects as a prediction of joint ones, and the best r2 that is possible without the context."""

    r2: float
    ceiling: float


class Single(NamedTuple):
    """The effects of single pushes."""

    pooled: Float[Tensor, "k d_out"]
    early: Float[Tensor, "k d_out"]
    """Mean over the tokens of the first half of the contexts."""


@torch.no_grad()
def single_effects(contexts: Contexts, pushes: Float[Tensor, "k d_in"]) -> Single:
    """Return the effect of each push, over all contexts and in the first half of them."""
    if not len(pushes):
        return Single(pushes, pushes)
    early = in_first_half(contexts)
    parts = [(tokens.mean(1), tokens[:, early].mean(1)) for tokens in in_parts(contexts, pushes)]
    return Single(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def additivity(contexts: Contexts, pushes: Float[Tensor, "k d_in"]) -> Additivity:
    """Measure additivity over all cyclic runs of 2, 3 and 4 consecutive pushes. NaN with fewer than five pushes, or no
    effect to explain."""
    return joint_effects(contexts, pushes, single_effects(contexts, pushes).early)[0]


@torch.no_grad()
def joint_effects(
    contexts: Contexts, pushes: Float[Tensor, "k d_in"], alone: Float[Tensor, "k d_out"]
) -> tuple[Additivity, Float[Tensor, "k d_out"]]:
    """Return `additivity`, and the pooled effect of each push together with the next, cyclically: none below three
    pushes. `alone`: the effects of single pushes in the first half of the contexts."""
    early, count = in_first_half(contexts), len(pushes)
    unknown = Additivity(math.nan, math.nan)
    if count <= max(SETS) or bool(early.all()) or not bool(early.any()):
        pairs = pushes + pushes.roll(-1, 0) if count > min(SETS) else pushes[:0]
        return unknown, pooled_effect(contexts, pairs) if len(pairs) else alone[:0]
    sets = rings(count).to(pushes)
    predicted = (sets @ alone).split(COPIES)
    missed = fixed = total = 0.0
    together = []
    for effects, guess in zip(in_parts(contexts, sets @ pushes), predicted, strict=True):
        together.append(effects.mean(1))
        late = effects[:, ~early].double()
        total += float(late.square().sum())
        missed += float((late - guess.unsqueeze(1)).square().sum())
        fixed += float(late.mean(1).square().sum()) * late.shape[1]
    found = Additivity(1 - missed / total, fixed / total) if total > 0 else unknown
    return found, torch.cat(together)[:count]


def in_first_half(contexts: Contexts) -> Bool[Tensor, " token"]:
    """Return which kept tokens are in the first half of the contexts."""
    return contexts.mask.nonzero()[:, 0] < contexts.mask.shape[0] / 2


def rings(count: int) -> Bool[Tensor, "set count"]:
    """Return all cyclic runs of 2, 3 and 4 consecutive pushes, as masks."""
    places = torch.arange(count)
    after = (places - places.unsqueeze(1)) % count
    return torch.cat([after < size for size in SETS])


def in_parts(contexts: Contexts, pushes: Float[Tensor, "k d_in"]) -> Iterator[Float[Tensor, "some token d_out"]]:
    """Yield token effects, a few pushes at a time."""
    return (token_effects(contexts, everywhere(part, contexts)) for part in pushes.split(COPIES))
