"""A few random combinations of all first derivatives of a slice, enough to know how far any direction moves it.

    M = W J [rows, d_in],   E |M v|^2 = mean over kept tokens of |J_t v|^2,   s.d. of one relative to it sqrt(2 / rows)

J_t is the derivative of Delta°_t(theta) at 0, theta added at every kept token; W is Gaussian, drawn for every token
apart, so that tokens' effects add up in squares: MELBO's pooling (p = 2), not DCT's. One backward pass a row.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.effects.effect import COPIES, everywhere, token_effects
from unbraid.sources.base import Contexts


def sketched_jacobian(contexts: Contexts, rows: int, rng: torch.Generator) -> Float[Tensor, "rows d_in"]:
    """Return M, `rows` random combinations of the derivatives at all kept tokens."""
    parts = []
    for start in range(0, rows, COPIES):
        count = min(COPIES, rows - start)
        with torch.enable_grad():
            theta = contexts.acts.new_zeros(count, contexts.acts.shape[-1], requires_grad=True)
            effects = token_effects(contexts, everywhere(theta, contexts))
            weights = torch.randn(effects.shape, generator=rng).to(effects) / (rows * effects.shape[1]) ** 0.5
            parts.append(torch.autograd.grad((effects * weights).sum(), theta)[0])
    return torch.cat(parts)
