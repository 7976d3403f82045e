"""Only the matrix products, into memory allocated beforehand: what a dense step, or any step, cannot go below."""

import torch
from torch import Tensor

from benchmarks.contender import Contender, Setting


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
