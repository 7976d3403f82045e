"""Adam (Kingma and Ba 2015) on named tensors, for a small network that learns inside a term.

Its state is plain tensors, `steps` and, of each parameter p, `first.p` and `second.p`, so that it is saved and resumed
with the term's memory.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

EPSILON = 1e-8


def at_rest(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters before their first step, with their moments."""
    state = {"steps": torch.zeros((), dtype=torch.long), **parameters}
    for name, value in parameters.items():
        state |= {f"first.{name}": torch.zeros_like(value), f"second.{name}": torch.zeros_like(value)}
    return state


@torch.no_grad()
def stepped(
    state: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float, betas: tuple[float, float]
) -> dict[str, Tensor]:
    """The state after one step down the gradients. Nothing is changed in place."""
    count = int(state["steps"]) + 1
    out = {**state, "steps": torch.tensor(count)}
    for name, gradient in gradients.items():
        # A gradient may come transposed; in another order the same numbers multiply to others, and files keep no order.
        grad = gradient.contiguous()
        first = betas[0] * state[f"first.{name}"] + (1 - betas[0]) * grad
        second = betas[1] * state[f"second.{name}"] + (1 - betas[1]) * grad.square()
        deviation = (second / (1 - betas[1] ** count)).sqrt() + EPSILON
        moved = state[name] - lr * first / (1 - betas[0] ** count) / deviation
        out |= {name: moved, f"first.{name}": first, f"second.{name}": second}
    return out
