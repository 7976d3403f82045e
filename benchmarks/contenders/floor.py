"""Products and the optimiser alone, into memory allocated before: what a dense step, or any, cannot go below."""

import torch
from torch import Tensor

from benchmarks.contender import LEARNING_RATE, Contender, Setting

CHUNK_ENTRIES = 2**22
"""Of the encoder's product that are kept at once, about what a core's share of the cache holds."""


def dense(setting: Setting) -> Contender:
    """Encode and decode, and the two products of each one's backward pass."""
    x_grad = torch.randn(setting.batch, setting.d_in)
    z = torch.randn(setting.batch, setting.d_sae)
    encoder, decoder = setting.atoms(), setting.atoms()
    latent, row, weight = torch.empty_like(z), torch.empty_like(x_grad), torch.empty_like(encoder)

    def step(index: int, x: Tensor) -> None:
        torch.mm(x, encoder.t(), out=latent)
        torch.mm(z, decoder, out=row)
        torch.mm(x_grad, decoder.t(), out=latent)
        torch.mm(z.t(), x_grad, out=weight)
        torch.mm(z.t(), x, out=weight)
        torch.mm(z, encoder, out=row)

    return Contender(step, [encoder, decoder])


def encoder(setting: Setting) -> Contender:
    weights, latent = setting.atoms(), torch.empty(setting.batch, setting.d_sae)
    return Contender(lambda index, x: torch.mm(x, weights.t(), out=latent), [weights])


def build(setting: Setting, *, kind: torch.dtype = torch.float32) -> Contender:
    """The encoder's product, a few rows at a time, and the optimiser's pass over all weights."""
    readers, atoms = setting.atoms(), setting.atoms()
    parameters = [readers, atoms, torch.zeros(setting.d_sae), torch.zeros(setting.d_in)]
    for parameter in parameters:
        parameter.requires_grad_().grad = torch.full_like(parameter, 1e-6)
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = max(1, min(setting.batch, CHUNK_ENTRIES // setting.d_sae))
    latent = torch.empty(rows, setting.d_sae, dtype=kind)

    def step(index: int, x: Tensor) -> None:
        # In bfloat16 the weights are rounded at every step, as they have changed.
        low, weights = x.to(kind), readers.detach().to(kind)
        for part in low.split(rows):
            torch.mm(part, weights.t(), out=latent[: len(part)])
        optimiser.step()

    return Contender(step, parameters, optimiser)


def build_bfloat16(setting: Setting) -> Contender:
    return build(setting, kind=torch.bfloat16)
