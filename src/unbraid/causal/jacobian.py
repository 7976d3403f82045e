"""The Jacobian of a slice's pooled effect at 0, whole, sketched, or by power iteration.

J_:i = d pooled / d theta_i   [d_out, d_in]       J = U S V'
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.causal.calibration import random_units
from unbraid.causal.effect import COPIES
from unbraid.causal.slice import Slice
from unbraid.dictionary import Watch, unwatched


def jacobian(after: Slice, watch: Watch = unwatched) -> Float[Tensor, "d_out d_in"]:
    """All of it: d_in forward-mode passes."""
    acts, rows = after.contexts.acts, list[Tensor]()
    for part in torch.eye(after.d_in, dtype=acts.dtype, device=acts.device).split(COPIES):
        rows.append(after.first(part))
        watch(min(len(rows) * COPIES, after.d_in), after.d_in)
    return torch.cat(rows).T


def sketch(after: Slice, rows: int, rng: torch.Generator) -> Float[Tensor, "rows d_in"]:
    """W J, of `rows` random unit vectors W: as many backward passes. Squared lengths |W J v|^2 d_out / rows estimate
    |J v|^2 with a relative standard deviation of about sqrt(2 / rows)."""
    acts = after.contexts.acts
    probes = random_units(rows, after.contexts.base.shape[-1], rng).to(acts)
    return after.pull_back(torch.zeros(rows, after.d_in).to(acts), probes)


def top_right(matrix: Float[Tensor, "rows d_in"], count: int) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
    """The right singular vectors of the largest singular values, which come along. They are the rows of the third thing
    `torch.linalg.svd` returns; its columns, which the released DCT code takes, are no singular vectors of anything."""
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return right[:count], values[:count]


def power_iteration(
    after: Slice, count: int, rounds: int, rng: torch.Generator, watch: Watch
) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
    """The same without forming J: V <- orthonormalised J'J V, a forward and a backward pass each round. The last
    round is turned to the singular vectors inside the span."""
    acts = after.contexts.acts
    v = torch.linalg.qr(torch.randn(after.d_in, count, generator=rng).to(acts)).Q.T
    at = torch.zeros_like(v)
    for index in range(rounds):
        v = torch.linalg.qr(after.pull_back(at, after.first(v)).T).Q.T
        watch(index + 1, rounds)
    _, values, turn = torch.linalg.svd(after.first(v).T, full_matrices=False)
    return turn @ v, values


def stronger_side(after: Slice, directions: Float[Tensor, "k d_in"], radius: float) -> Float[Tensor, "k d_in"]:
    """Each direction or its negative, whichever moves more at the radius: to first order they move alike."""
    sizes = torch.stack([after.pooled(sign * radius * directions).square().sum(1) for sign in (1.0, -1.0)])
    return torch.where((sizes[0] >= sizes[1]).unsqueeze(1), directions, -directions)
