"""Minimal pairs of a world: rows, and the same rows without one of their active factors.

A factor can be taken away only when none of its children is active, so that what is left is a row the forest allows.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.sources.world.firing import Firings, add_factors
from unbraid.sources.world.manifolds import Manifolds


def without_one(
    x: Float[Tensor, "count d_in"],
    firings: Firings,
    directions: Float[Tensor, "factors d_in"],
    manifolds: Manifolds,
    parents: Int[Tensor, " factors"],
    rng: torch.Generator,
) -> tuple[Float[Tensor, "pair d_in"], Float[Tensor, "pair d_in"], Int[Tensor, " pair"]]:
    """Rows that have a factor to lose, the same rows without it, and which factor that is."""
    entries = chosen(firings, parents, rng)
    rows = firings.rows[entries]
    curved = manifolds.among(firings.factors)
    points = firings.points[(curved.cumsum(0) - 1)[entries][curved[entries]]]
    order = torch.arange(len(entries))
    lost = torch.zeros(len(entries), x.shape[1])
    add_factors(
        lost, Firings(order, firings.factors[entries], firings.magnitudes[entries], points), directions, manifolds
    )
    return x[rows], x[rows] - lost, firings.factors[entries]


def chosen(firings: Firings, parents: Int[Tensor, " factors"], rng: torch.Generator) -> Int[Tensor, " pair"]:
    """One entry of every row that has one to lose, at random."""
    can = childless(firings, parents).nonzero().squeeze(1)
    can = can[torch.randperm(len(can), generator=rng)]
    rows = firings.rows[can]
    order = rows.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = rows[order][1:] != rows[order][:-1]
    return can[order[first]]


def childless(firings: Firings, parents: Int[Tensor, " factors"]) -> Bool[Tensor, " active"]:
    """Entries whose factor has no active child in its row."""
    count = len(parents)
    above = parents[firings.factors]
    taken = (firings.rows * count + above)[above >= 0]
    return ~torch.isin(firings.rows * count + firings.factors, taken)
