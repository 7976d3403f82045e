"""Independence of the effects of directions on downstream layers, at finite size, whatever the layers are.

    overlap = mean_i max_j cos(D_i, D_j)               interaction = |D_ij - D_i - D_j| / (|D_i| + |D_j|)
    rank = (sum_k l_k)^2 / sum_k l_k^2                 l: eigenvalues of the Gram matrix of the D_i

D_i is the pooled effect of direction i without the skip path, D_ij that of both together. The first is what an
orthogonal Jacobian (Wei et al. 2021) and the second what a diagonal Hessian (Peebles et al. 2020) would make 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Effects = Float[Tensor, "k d_out"]


def largest_cosines(effects: Effects, neighbours: Effects) -> Float[Tensor, " k"]:
    """Return the largest cosine of each effect with any other of them, or with its neighbour's."""
    units, near = (norm_one(part) for part in (effects, neighbours))
    cosines = (units @ units.T).fill_diagonal_(-1)
    return torch.cat([cosines, (units * near).sum(1, keepdim=True)], 1).amax(1)


def norm_one(effects: Effects) -> Effects:
    """Return effects scaled to norm 1; those of no length stay 0."""
    return torch.nn.functional.normalize(effects, dim=1, eps=1e-30)


def interactions(both: Effects, one: Effects, other: Effects) -> Float[Tensor, " k"]:
    """Return the effect of pairs of pushes beyond the sum of both, relative to each apart; NaN where neither has an
    effect."""
    beyond, alone, apart = (torch.linalg.vector_norm(part, dim=1) for part in (both - one - other, one, other))
    return beyond / (alone + apart)


def effect_rank(effects: Effects) -> float:
    """Return how many dimensions the effects span: from 1, all parallel, to their number, equal and orthogonal; NaN
    when all are 0."""
    gram = effects.double() @ effects.double().T
    return float(gram.trace().square() / gram.square().sum())
