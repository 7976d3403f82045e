"""A small discriminator whose state is plain tensors: is a row a code, or are its latents from different rows?

    GAIN times two hidden layers of rectifiers, each matrix divided by its largest singular value (Miyato et al. 2018)

Its logit estimates log p(z) / prod_i p(z_i). It is trained by `adam`, one step a call, with nothing but a dictionary of
tensors to keep, so it is saved and resumed with a term's memory.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, normalize, softplus

from unbraid.terms.statistics.adam import at_rest, stepped

HIDDEN = 256
LAYERS = 3
GAIN = 4.0
"""Largest slope of the logit. Were it 1, a gate that opens could not move the logit by more than 1."""
SLOPE = 0.2
"""Of the rectifiers where they are negative, as FactorVAE's."""

State = dict[str, Tensor]
Rows = Float[Tensor, "rows inputs"]


def fresh(inputs: int, like: Tensor, rng: torch.Generator) -> State:
    """Random weights, empty moments, random singular vectors."""
    widths = [inputs, *[HIDDEN] * (LAYERS - 1), 1]
    state: State = {}
    for layer in range(LAYERS):
        rows, columns = widths[layer + 1], widths[layer]
        weight = torch.randn(rows, columns, generator=rng, dtype=torch.float64) * (2 / columns) ** 0.5
        state |= {f"weight.{layer}": weight, f"bias.{layer}": torch.zeros(rows, dtype=torch.float64)}
        state[f"singular.{layer}"] = normalize(torch.randn(rows, generator=rng, dtype=torch.float64), dim=0)
        for _ in range(8):
            state[f"singular.{layer}"] = power_step(state, layer)
    state = {name: value.to(like) for name, value in state.items()}
    return state | at_rest({name: state[name] for name in parameters(state)})


def parameters(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if name.startswith(("weight.", "bias."))]


def logits(state: Mapping[str, Tensor], rows: Rows) -> Float[Tensor, " rows"]:
    """Above 0 for rows taken for codes."""
    hidden = rows
    for layer in range(LAYERS):
        weight = state[f"weight.{layer}"]
        left = state[f"singular.{layer}"]
        with torch.no_grad():
            right = normalize(weight.T @ left, dim=0)
        hidden = linear(hidden, weight / (left @ weight @ right).clamp_min(1e-12), state[f"bias.{layer}"])
        hidden = leaky_relu(hidden, SLOPE) if layer < LAYERS - 1 else hidden
    return GAIN * hidden.squeeze(1)


@torch.no_grad()
def trained(state: State, codes: Rows, mixed: Rows, lr: float, betas: tuple[float, float]) -> State:
    """The state after one step of Adam on telling `codes` from `mixed`."""
    state = state | {f"singular.{layer}": power_step(state, layer) for layer in range(LAYERS)}
    names = parameters(state)
    with torch.enable_grad():
        free = {name: state[name].detach().requires_grad_() for name in names}
        loss = softplus(-logits(state | free, codes)).mean() + softplus(logits(state | free, mixed)).mean()
        gradients = torch.autograd.grad(loss, list(free.values()))
    return stepped(state, dict(zip(names, gradients, strict=True)), lr, betas)


def power_step(state: Mapping[str, Tensor], layer: int) -> Float[Tensor, " out"]:
    weight = state[f"weight.{layer}"]
    return normalize(weight @ normalize(weight.T @ state[f"singular.{layer}"], dim=0), dim=0)
