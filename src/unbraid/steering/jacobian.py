"""The Jacobian of a slice's pooled effect at 0, whole, sketched, or by power iteration.

J_:i = d pooled / d theta_i   [d_out, d_in]       J = U S V'
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.initialisation import ProgressCallback, no_progress, not_kept
from unbraid.effects.effect import COPIES
from unbraid.effects.radius import random_units
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import PushLength

Reached = Mapping[str, Tensor]
Keep = Callable[[Reached], None]
NOTHING: Reached = MappingProxyType({})


def jacobian(
    after: Slice,
    watch: ProgressCallback = no_progress,
    reached: Reached = NOTHING,
    keep: Keep = not_kept,
) -> Float[Tensor, "d_out d_in"]:
    """Compute the whole Jacobian by d_in forward-mode passes, continuing from the state `reached`."""
    acts = after.contexts.acts
    units = torch.eye(after.d_in, dtype=acts.dtype, device=acts.device)
    return in_parts(units, lambda part: after.first(part), watch, reached, keep).T


def sketch(
    after: Slice,
    rows: int,
    rng: torch.Generator,
    watch: ProgressCallback = no_progress,
    reached: Reached = NOTHING,
    keep: Keep = not_kept,
) -> Float[Tensor, "rows d_in"]:
    """Compute W J for `rows` random unit vectors W, by as many backward passes.

    |W J v|^2 d_out / rows estimates |J v|^2 with a relative standard deviation of about sqrt(2 / rows).
    """
    acts = after.contexts.acts
    probes = reached.get("probes")
    if probes is None:
        probes = random_units(rows, after.contexts.base.shape[-1], rng)
    pulled = lambda part: after.pull_back(torch.zeros(len(part), after.d_in).to(acts), part)
    return in_parts(probes.to(acts), pulled, watch, reached, lambda state: keep({**state, "probes": probes}))


def in_parts(
    inputs: Tensor, compute: Callable[[Tensor], Tensor], watch: ProgressCallback, reached: Reached, keep: Keep
) -> Tensor:
    """Apply `compute` to a few rows of `inputs` at a time, skipping those already `reached`."""
    found: dict[str, Tensor] = {}
    for number, part in enumerate(inputs.split(COPIES)):
        name = f"part/{number}"
        found[name] = reached[name].to(inputs) if name in reached else compute(part).contiguous()
        watch(min((number + 1) * COPIES, len(inputs)), len(inputs))
        if name not in reached:
            keep(found)
    return torch.cat(list(found.values()))


def top_right(matrix: Float[Tensor, "rows d_in"], count: int) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
    """Return the right singular vectors with the largest singular values, and those values.

    They are the rows of the third result of `torch.linalg.svd`; its columns, which the released DCT code takes, are not
    singular vectors.
    """
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return right[:count], values[:count]


def power_iteration(
    after: Slice,
    count: int,
    rounds: int,
    rng: torch.Generator,
    watch: ProgressCallback,
    reached: Reached = NOTHING,
    keep: Keep = not_kept,
) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
    """Approximate the top right singular vectors without forming J, by V <- orthonormalised J'J V.

    Each round takes a forward and a backward pass; at the end V is rotated to the singular vectors within its span.
    """
    acts = after.contexts.acts
    if reached:
        v = reached["moved"].to(acts)
    else:
        v = torch.linalg.qr(torch.randn(after.d_in, count, generator=rng).to(acts)).Q.T
    at = torch.zeros_like(v)
    for index in range(int(reached.get("index", 0)), rounds):
        # Contiguous: files keep no order, and in another the same numbers sum to others.
        v = torch.linalg.qr(after.pull_back(at, after.first(v)).T).Q.T.contiguous()
        watch(index + 1, rounds)
        keep({"index": torch.tensor(index + 1), "moved": v})
    _, values, turn = torch.linalg.svd(after.first(v).T, full_matrices=False)
    return turn @ v, values


def stronger_side(after: Slice, directions: Float[Tensor, "k d_in"], length: PushLength) -> Float[Tensor, "k d_in"]:
    """Return each direction or its negative, whichever moves more at its length; to first order both move alike."""
    sides = (directions, -directions)
    sizes = torch.stack([after.pooled(length.begin(side) * side).square().sum(1) for side in sides])
    return torch.where((sizes[0] >= sizes[1]).unsqueeze(1), directions, -directions)
