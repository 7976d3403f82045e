"""Constraints on atoms that training restores after every step."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def hold_near(
    atoms: Float[Tensor, "d_sae d_in"], start: Float[Tensor, "d_sae d_in"], cosine: float
) -> Float[Tensor, "d_sae d_in"]:
    """The nearest unit vectors to `atoms` (of unit norm) whose cosine to `start` is at least `cosine`."""
    along = (atoms * start).sum(1, keepdim=True)
    across = atoms - along * start
    across = across / torch.linalg.vector_norm(across, dim=1, keepdim=True).clamp_min(1e-12)
    return torch.where(along < cosine, cosine * start + math.sqrt(1 - cosine**2) * across, atoms)
