"""Effects on the factors' readouts of setting one latent, all else kept, the reconstruction's error too.

x' = x + (level - z_i) atom_i,   E_ic = mean over rows of |readout_c(x') - readout_c(x)|
modularity_i = (max_c E_ic / sum_c E_ic - 1/F) / (1 - 1/F)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK_ENTRIES = 2**22
"""Directions times rows times factors held at once: 16 MB."""

Moves = Float[Tensor, "k factors"]
Readouts = Callable[[Float[Tensor, "*fold d_in"]], Float[Tensor, "*fold factors"]]


def moves(
    readouts: Readouts,
    x: Float[Tensor, "row d_in"],
    atoms: Float[Tensor, "k d_in"],
    now: Float[Tensor, "row k"],
    levels: Float[Tensor, " k"],
) -> Moves:
    """Return E, one latent at a time. `now`: their codes in these rows; `levels`: what each is set to."""
    before = readouts(x)
    at_once = max(1, CHUNK_ENTRIES // max(1, before.numel()))
    parts = []
    for some, atom in zip((levels - now).T.split(at_once), atoms.split(at_once), strict=True):
        after = readouts(x + some.unsqueeze(-1) * atom.unsqueeze(1))
        parts.append((after - before).abs().mean(1))
    return torch.cat(parts)


def shares(moved: Moves) -> Moves:
    """Return each factor's share of what setting a latent moves; NaN for a latent that moves nothing."""
    return moved / moved.sum(1, keepdim=True)


def modularity(moved: Moves) -> Float[Tensor, " k"]:
    """Return 1 for a latent that moves one factor alone, 0 for one that moves all alike; NaN for one that moves
    nothing, and where there is only one factor."""
    count = moved.shape[1]
    if count < 2:
        return moved.new_full((len(moved),), torch.nan)
    return (shares(moved).amax(1) - 1 / count) / (1 - 1 / count)
