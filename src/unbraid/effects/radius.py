"""The radius at which random directions leave the linear regime (Mack and Turner 2024, "Calibrating R").

    sqrt( mean_v |Delta°(R v) - R J v|^2 / |R J v|^2 ) = ratio,   v random unit vectors,   J the Jacobian of Delta° at 0

The post states an unnormalised sum; this is the relative ratio of its released code, but without the skip path,
which is linear at every radius and would hide how far the rest has left the linear regime.
"""

import math
from collections.abc import Callable
from functools import cache
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp

from unbraid import seeding
from unbraid.effects.effect import pooled_effect
from unbraid.effects.forward_mode import forward_mode
from unbraid.sources.base import Contexts

RATIO = 0.5  # lambda in Mack and Turner's experiments
DIRECTIONS = 30  # their code
BRACKET = (1e-3, 10.0)
"""Where to look, in units of the median norm of the kept activations."""
ROUNDINGS = (16, 8, 4, 2)
"""Smallest pushes looked at, in roundings of the activations, in which a smaller one is lost and looks nonlinear: 1/8
of the norm in bfloat16, or less where the slice is far from linear already there."""
LARGEST = 1e6
"""Returned for a ratio that overflowed."""
PRECISION = 1e-3
"""Of a calibrated radius, relative: the ratio that defines it is a convention, and each look runs the model."""


@torch.no_grad()
def calibrate_radius(
    contexts: Contexts, *, rng: torch.Generator, ratio: float = RATIO, bracket: tuple[float, float] = BRACKET
) -> float:
    """Return the radius, in raw units, at which the nonlinear part of random effects is `ratio` of the linear one.

    Raises ValueError when there is no first-order effect to compare with, or no such radius inside `bracket`.
    """
    from scipy.optimize import brentq  # a quarter of a second to import

    excess, low, high = radius_bracket(contexts, rng=rng, ratio=ratio, bracket=bracket)
    root = brentq(excess, math.log(low), math.log(high), xtol=PRECISION)
    return math.exp(float(root))  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def radius_bracket(
    contexts: Contexts, *, rng: torch.Generator, ratio: float = RATIO, bracket: tuple[float, float] = BRACKET
) -> tuple[Callable[[float], float], float, float]:
    """Return two radii between which `calibrate_radius` finds its own, after what rises through 0 there, as a function
    of the logarithm. It runs the model a few times, and so costs a small part of finding the radius.

    Raises ValueError when there is no first-order effect to compare with, or no such radius inside `bracket`.
    """
    acts = contexts.acts
    exact = torch.promote_types(acts.dtype, torch.float32)
    units = random_units(DIRECTIONS, acts.shape[-1], rng).to(acts.device, exact)
    linear = first_order(contexts, units)
    low, high = (end * typical_norm(contexts) for end in bracket)

    @cache
    def excess(log_radius: float) -> float:
        return math.log(nonlinearity(contexts, units, linear, math.exp(log_radius)) / ratio)

    low, at_low = start(excess, low, contexts.rounding * typical_norm(contexts))
    at_high = excess(math.log(high))
    if not at_low < 0 < at_high:
        raise ValueError(
            f"no radius in [{low:.3g}, {high:.3g}] gives a nonlinear share of {ratio}: it is "
            f"{ratio * math.exp(at_low):.2g} at the lower end and {ratio * math.exp(at_high):.2g} at the upper. "
            f"{remedy(at_low)}"
        )
    return excess, low, high


def start(excess: Callable[[float], float], low: float, rounding: float) -> tuple[float, float]:
    """Return the smallest radius to look at, at least `low`, and the excess there: where roundings are lost in the
    push, not it in them."""
    found = (low, math.inf)
    for many in ROUNDINGS:
        radius = max(low, many * rounding)
        found = radius, excess(math.log(radius))
        if found[1] < 0 or radius == low:
            break
    return found


def typical_norm(contexts: Contexts) -> float:
    """Return the median norm of the kept activations."""
    return float(contexts.acts[contexts.mask].float().norm(dim=-1).median())


def checked_radius(contexts: Contexts, radius: float) -> float:
    """Return the radius. Raises ValueError for one so far from the activations' norm that no calibration would look
    there."""
    low, high = (end * typical_norm(contexts) for end in BRACKET)
    if radius and not low <= radius <= high:
        raise ValueError(
            f"radius {radius:g} is outside [{low:.3g}, {high:.3g}], {BRACKET[0]:g} to {BRACKET[1]:g} times the median "
            f"norm of these activations ({typical_norm(contexts):.3g}); leave it at 0 to calibrate it"
        )
    return radius


def first_order(contexts: Contexts, units: Float[Tensor, "k d_in"]) -> Float[Tensor, "k d_out"]:
    """Return J v of the pooled effect. Raises ValueError when it vanishes."""
    with forward_mode():
        linear = jvp(lambda theta: pooled_effect(contexts, theta), (torch.zeros_like(units),), (units,))[1]
    if not float(linear.square().sum(1).min()) > 1e-10:
        raise ValueError(
            "downstream layers have no first-order effect, so no radius can be calibrated; "
            "choose a later target layer, or set the radius by hand"
        )
    return linear


def nonlinearity(
    contexts: Contexts, units: Float[Tensor, "k d_in"], linear: Float[Tensor, "k d_out"], radius: float
) -> float:
    """Return the nonlinear part of the effects at `radius`, relative to the linear one."""
    rest = pooled_effect(contexts, radius * units) - radius * linear
    share = (rest.square().sum(1) / (radius * linear).square().sum(1)).mean().sqrt()
    return min(max(float(share), 1e-12), LARGEST) if bool(torch.isfinite(share)) else LARGEST


def remedy(at_low: float) -> str:
    if at_low >= 0:
        return "Lower the bracket, or load the model in float32: rounding looks nonlinear too."
    return "Downstream layers are nearly linear: choose a later target layer, raise the bracket, or set the radius."


def random_units(count: int, d_in: int, rng: torch.Generator) -> Float[Tensor, "count d_in"]:
    """Return random unit vectors, on the CPU."""
    vectors = torch.randn(count, d_in, generator=rng, device=rng.device)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def remembered_radius(contexts: Contexts, *, given: float, memory: dict[str, Tensor]) -> float:
    """Return `given` if above 0, else the radius calibrated at the first use and kept in `memory`."""
    if given > 0:
        return given
    if "radius" not in memory:
        memory["radius"] = torch.tensor(radius_of(contexts), dtype=torch.float64)
    return float(memory["radius"])


def radius_of(contexts: Contexts) -> float:
    """Return `calibrate_radius` with directions that are always the same, calibrated once for these contexts: all terms
    of all dictionaries that train on them ask for it, and it takes minutes on a large model."""
    if contexts not in _CALIBRATED:
        _CALIBRATED[contexts] = calibrate_radius(contexts, rng=seeding.stream(0, "radius"))
    return _CALIBRATED[contexts]


_CALIBRATED: WeakKeyDictionary[Contexts, float] = WeakKeyDictionary()
