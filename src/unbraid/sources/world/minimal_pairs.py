"""Minimal pairs of a world: rows, and the same rows without one of their active factors.

A factor can be taken away only when none of its children is active, so that what is left is a row the forest allows.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.sources.world.active_factors import ActiveFactors, add_factors
from unbraid.sources.world.manifolds import Manifolds


def without_one(
    x: Float[Tensor, "count d_in"],
    active: ActiveFactors,
    directions: Float[Tensor, "factors d_in"],
    manifolds: Manifolds,
    parents: Int[Tensor, " factors"],
    rng: torch.Generator,
) -> tuple[Float[Tensor, "pair d_in"], Float[Tensor, "pair d_in"], Int[Tensor, " pair"]]:
    """Return rows with a factor that can be removed, the same rows without it, and the number of that factor."""
    entries = chosen(active, parents, rng)
    rows = active.rows[entries]
    curved = manifolds.among(active.factors)
    points = active.points[(curved.cumsum(0) - 1)[entries][curved[entries]]]
    order = torch.arange(len(entries))
    lost = torch.zeros(len(entries), x.shape[1])
    add_factors(
        lost, ActiveFactors(order, active.factors[entries], active.magnitudes[entries], points), directions, manifolds
    )
    return x[rows], x[rows] - lost, active.factors[entries]


def chosen(active: ActiveFactors, parents: Int[Tensor, " factors"], rng: torch.Generator) -> Int[Tensor, " pair"]:
    """Return one random entry of every row that has an active factor without active children."""
    can = childless(active, parents).nonzero().squeeze(1)
    can = can[torch.randperm(len(can), generator=rng)]
    rows = active.rows[can]
    order = rows.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = rows[order][1:] != rows[order][:-1]
    return can[order[first]]


def childless(active: ActiveFactors, parents: Int[Tensor, " factors"]) -> Bool[Tensor, " active"]:
    """Return a mask of the entries whose factor has no active child in its row."""
    count = len(parents)
    above = parents[active.factors]
    taken = (active.rows * count + above)[above >= 0]
    return ~torch.isin(active.rows * count + active.factors, taken)
