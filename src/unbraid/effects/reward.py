"""The reward of an effect: the logarithm of its size, up to a cap.

    min(log s, cap),   s in sizes of random directions, not below a thousandth

A latent of half the effect is pushed twice as hard as with the size itself, and a strong one not at all beyond the cap.
"""

from jaxtyping import Float
from torch import Tensor

LEAST = 1e-3
"""Smaller effects are rounding, whose gradient is noise over noise."""


def capped_log(sizes: Float[Tensor, " k"], cap: float) -> Float[Tensor, " k"]:
    """Return log sizes, up to `cap`; 0 sets no cap."""
    logs = sizes.clamp_min(LEAST).log()
    return logs.clamp_max(cap) if cap else logs
