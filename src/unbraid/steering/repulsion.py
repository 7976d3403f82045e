"""Soft orthogonalisation: each direction steps away from those it is most like (SOGI, the DCT's successor).

    S = V V' + log|g| on column l,   diagonal -inf;   A = softmax of rows of S / temperature;   v <- norm(v - A v)

Directions yield to strong ones (|g|: size of their gradients) and nothing is exactly orthogonal, so there may be more
directions than dimensions. Read from the LoRA-DCT trainer that follows Mack and Turner 2024.
"""

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 10
"""Number of rounds, as in that trainer."""


@torch.no_grad()
def repelled(
    directions: Float[Tensor, "k d_in"],
    strengths: Float[Tensor, " k"],
    *,
    temperature: float = 1.0,
    rounds: int = ROUNDS,
) -> Float[Tensor, "k d_in"]:
    """Push unit vectors apart, and return unit vectors. A single direction is returned as it is."""
    if len(directions) < 2:
        return directions
    own = torch.eye(len(directions), dtype=torch.bool, device=directions.device)
    bias = torch.log(strengths + 1e-8)
    for _ in range(rounds):
        similar = ((directions @ directions.T) / temperature + bias).masked_fill(own, -torch.inf)
        directions = torch.nn.functional.normalize(directions - similar.softmax(1) @ directions, dim=1)
    return directions
