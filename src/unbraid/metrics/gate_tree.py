"""The gate tree: latents as a tree in which each gate is coded given its parent's.

    saved_j = n h(p_j) - [ n_i h(on) - n_ij' log2 off - (n - n_i - n_ij') log2(1 - off) ],   i = parent(j)

n rows, n_i in which i fires, n_ij' in which j fires without i; on = P(j | i), off = min(P(j | not i), leak). Parents
fire at least as often as their children, so there are no cycles; with leak 1 it is Chow and Liu's tree (1968) but for
that order. A latent has a parent only where that saves more bits than naming it and one more probability cost:
log2(d_sae) + 1/2 log2 n.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.metrics.information import binary_entropy


class Together(NamedTuple):
    """Rows in which two latents fire together, for pairs (child, parent) in any order, each at most once."""

    child: Int[Tensor, " pair"]
    parent: Int[Tensor, " pair"]
    rows: Float[Tensor, " pair"]


class GateTree(NamedTuple):
    """The parent of each latent, and what it saves."""

    parent: Int[Tensor, " d_sae"]
    """-1 for roots."""
    together: Float[Tensor, " d_sae"]
    """Rows in which a latent fires with its parent; 0 for roots."""
    saved: Float[Tensor, " d_sae"]
    """Bits in all rows, the price not deducted; 0 for roots."""


def gate_tree(fired: Float[Tensor, " d_sae"], pairs: Together, rows: int, *, leak: float = 1.0) -> GateTree:
    """Return the parent that saves most, latent by latent. `fired`: rows in which each fires. `leak`: the largest
    probability that a child may be given where its parent is silent."""
    rank = torch.empty_like(fired, dtype=torch.long)
    rank[fired.argsort(descending=True, stable=True)] = torch.arange(len(fired), device=fired.device)
    above = rank[pairs.parent] < rank[pairs.child]
    child, parent, both = (column[above] for column in pairs)
    saved = saving(fired[child], fired[parent], both, rows, leak)
    worth = saved > price(len(fired), rows)
    child, parent, both, saved = (column[worth] for column in (child, parent, both, saved))
    order = saved.argsort(stable=True)
    order = order[child[order].argsort(stable=True)]  # by child, then by saving
    child = child[order]
    last = torch.ones_like(child, dtype=torch.bool)
    last[:-1] = child[1:] != child[:-1]
    chosen, child = order[last], child[last]
    tree = GateTree(torch.full_like(rank, -1), torch.zeros_like(fired), torch.zeros_like(fired))
    tree.parent[child], tree.together[child], tree.saved[child] = parent[chosen], both[chosen], saved[chosen]
    return tree


def saving(
    child: Float[Tensor, " pair"], parent: Float[Tensor, " pair"], both: Float[Tensor, " pair"], rows: int, leak: float
) -> Float[Tensor, " pair"]:
    """Return the bits saved in all rows by coding a child given its parent, from counts; negative where it costs."""
    alone, silent = child - both, rows - parent
    off = (alone / silent.clamp_min(1)).clamp_max(leak)
    without = -(torch.special.xlogy(alone, off) + torch.special.xlog1py(silent - alone, -off)) / math.log(2)
    return rows * binary_entropy(child / rows) - parent * binary_entropy(both / parent.clamp_min(1)) - without


def price(d_sae: int, rows: int) -> float:
    """Return the bits for naming a parent and giving one more probability as exactly as the rows determine it (Rissanen
    1983)."""
    return math.log2(d_sae) + 0.5 * math.log2(rows)
