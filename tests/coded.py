"""Steps whose codes are given: an identity dictionary reads them."""

from typing import Any

import torch
from torch import Tensor

from tests import steps
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.weights import Path
from unbraid.objective.objective import Step


def identity(width: int, activation: Activation | None = None) -> Dictionary:
    """Latent i is coordinate i."""
    return steps.with_atoms(torch.eye(width, dtype=torch.float64), activation)


def step(codes: Tensor, *, activation: Activation | None = None, path: Path = "sparse", **given: Any) -> Step:
    """`codes`: non-negative, in float64. `step.z.values` leads to `x`, which has gradient when `codes` asks for it."""
    return steps.step(identity(codes.shape[1], activation), codes, path=path, **given)


def sparse(rows: int, width: int, rate: float, seed: int = 0) -> Tensor:
    """Independent latents: active with probability `rate`, then lognormal."""
    rng = torch.Generator().manual_seed(seed)
    active = torch.rand(rows, width, generator=rng, dtype=torch.float64) < rate
    return active * torch.randn(rows, width, generator=rng, dtype=torch.float64).mul(0.3).exp()
