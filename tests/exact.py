"""Dictionaries in float64 with arbitrary parameters, for comparing one way of computing something with another."""

import torch
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary

ACTIVATIONS = [ReLU(), TopK(4), BatchTopK(4), JumpReLU(bandwidth=0.3)]
D_IN, D_SAE, BATCH = 7, 24, 21


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dictionary(activation: Activation, *, seed: int = 0, shift: float = -1.0, bfloat16: bool = False) -> Dictionary:
    """Random weights and unit atoms. `shift` moves all pre-activations; latents 3 and 17 are never active."""
    made = Dictionary(D_IN, D_SAE, activation, bfloat16=bfloat16).double()
    with torch.no_grad():
        made.W_enc.copy_(normal(D_IN, D_SAE, seed=seed))
        made.W_dec.copy_(normal(D_SAE, D_IN, seed=seed + 1))
        made.b_enc.copy_(normal(D_SAE, seed=seed + 2) + shift)
        made.b_enc[[3, 17]] = -100.0
        made.b_dec.copy_(normal(D_IN, seed=seed + 3))
        made.threshold.copy_(normal(D_SAE, seed=seed + 4).abs())
    made.renormalise()
    return made


def batch(*, seed: int = 0) -> Tensor:
    """Rows of very different sizes: some have many active latents, some few."""
    return normal(BATCH, D_IN, seed=seed + 5) * torch.linspace(0, 2, BATCH, dtype=torch.float64).unsqueeze(1)
