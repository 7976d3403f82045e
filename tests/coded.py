"""A step whose codes are given: an identity dictionary reads them."""

import torch
from torch import Tensor

from unbraid.activation import Activation, ReLU
from unbraid.dictionary import Dictionary, Path
from unbraid.objective import Step
from unbraid.source import Batch


def no_contexts():
    raise AssertionError("these terms read no contexts")


def identity(width: int, activation: Activation | None = None) -> Dictionary:
    """Latent i is coordinate i."""
    dictionary = Dictionary(width, width, activation or ReLU()).double()
    dictionary.W_dec.data.copy_(torch.eye(width))
    dictionary.W_enc.data.copy_(torch.eye(width))
    return dictionary


def step(
    codes: Tensor, *, seed: int = 0, memory: dict[str, Tensor] | None = None, progress: float = 0.5,
    documents: Tensor | None = None, activation: Activation | None = None, path: Path = "sparse",
) -> Step:  # fmt: skip
    """`codes`: non-negative, in float64. `step.z.values` leads to `x`, which has gradient when `codes` asks for it."""
    dictionary = identity(codes.shape[1], activation)
    index = torch.arange(len(codes))
    return Step(
        x=codes, z=dictionary.encode(codes, path), dictionary=dictionary,
        batch=Batch(codes.detach(), index, index if documents is None else documents, index),
        dead=torch.zeros(codes.shape[1], dtype=torch.bool), progress=progress, contexts=no_contexts,
        rng=torch.Generator().manual_seed(seed), memory={} if memory is None else memory,
    )  # fmt: skip


def sparse(rows: int, width: int, rate: float, seed: int = 0) -> Tensor:
    """Independent latents: active with probability `rate`, then lognormal."""
    rng = torch.Generator().manual_seed(seed)
    active = torch.rand(rows, width, generator=rng, dtype=torch.float64) < rate
    return active * torch.randn(rows, width, generator=rng, dtype=torch.float64).mul(0.3).exp()
