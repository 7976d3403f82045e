"""Curvature of the effects of several atoms at once, from random signs (Peebles et al. 2020, Wei et al. 2021).

    theta(v) = R / sqrt(n) sum_i v_i d_i,  v_i = +-1        first(v) = (E(theta) - E(-theta)) / 2
                                                            second(v) = E(theta) + E(-theta)

For effects E with E(0) = 0, twice differentiable and R small, with c = R / sqrt(n) and derivatives along the atoms:
Var_v second = 2 c^4 sum_(i != j) H_ij^2 (an output at a time), Var_v |first|^2 = 2 c^4 sum_(i != j) (J_i . J_j)^2.
At a finite R they are what their names say, of finite pushes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.effects.effect import pooled_effect
from unbraid.effects.radius import remembered_radius
from unbraid.sources.base import Contexts

Effect = Callable[[Float[Tensor, "k d_in"]], Float[Tensor, "k d_out"]]


def random_signs(count: int, atoms: int, rng: torch.Generator) -> Float[Tensor, "count atoms"]:
    """Return rows of random signs, in float64."""
    return torch.randint(2, (count, atoms), generator=rng).double() * 2 - 1


def differences(
    effect: Effect, atoms: Float[Tensor, "n d_in"], signs: Float[Tensor, "k n"], radius: float
) -> tuple[Float[Tensor, "k d_out"], Float[Tensor, "k d_out"]]:
    """Return first(v) and second(v) for every row of signs. One call of `effect`."""
    push = radius / len(atoms) ** 0.5 * signs.to(atoms) @ atoms
    up, down = effect(torch.cat([push, -push])).chunk(2)
    return (up - down) / 2, up + down


class Pushed(NamedTuple):
    """Both differences of effects under random pushes, and the radius of the pushes in raw units."""

    first: Float[Tensor, "k d_out"]
    second: Float[Tensor, "k d_out"]
    radius: Tensor


def random_pushes(
    contexts: Contexts, atoms: Float[Tensor, "n d_in"], samples: int, *, radius: float, memory: dict[str, Tensor],
    rng: torch.Generator,
) -> Pushed:  # fmt: skip
    """Return both differences of pooled effects for `samples` random signs, at a radius given or calibrated once."""
    size = remembered_radius(contexts, given=radius, memory=memory)
    found = differences(partial(pooled_effect, contexts), atoms, random_signs(samples, len(atoms), rng), size)
    return Pushed(*found, torch.tensor(size))


def cross_curvature(first: Float[Tensor, "k d_out"], second: Float[Tensor, "k d_out"]) -> Float[Tensor, ""]:
    """Return Var_v second, summed over outputs, relative to the mean of |first|^2: less effect does not lower it. It
    grows with the square of the push, so values at different radii do not compare."""
    return second.var(0).sum() / first.square().sum(1).mean().clamp_min(1e-20)


def overlap(first: Float[Tensor, "k d_out"]) -> Float[Tensor, ""]:
    """Return Var_v |first|^2 relative to the square of its mean: 0 for orthogonal effects."""
    squares = first.square().sum(1)
    return squares.var() / squares.mean().square().clamp_min(1e-20)
