"""The neighbours of every latent: atoms that point alike, and latents that fire in the same rows."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.metrics.matching import unit
from unbraid.metrics.sparse_counts import active_rows, indicator, shape

CHUNK_ENTRIES = 2**24
"""Cosines held at once: 64 MB."""
LATENTS_AT_ONCE = 2048


class Neighbours(NamedTuple):
    """For every latent its closest others, the closest first; -1 and 0 where there are fewer."""

    latents: Int[np.ndarray, "d_sae count"]
    closeness: Float[np.ndarray, "d_sae count"]


@torch.no_grad()
def nearest_atoms(atoms: Float[Tensor, "d_sae d_in"], count: int) -> Neighbours:
    """Return the atoms of the largest |cosine| with each, and the cosine."""
    directions = unit(atoms.detach().float().cpu())
    count = min(count, len(directions) - 1)
    latents, closeness = [], []
    for start in range(0, len(directions), max(1, CHUNK_ENTRIES // len(directions))):
        cosines = directions[start : start + max(1, CHUNK_ENTRIES // len(directions))] @ directions.T
        size = cosines.abs()
        own = torch.arange(len(size))
        size[own, own + start] = -1.0
        best = size.topk(count, dim=1).indices
        latents.append(best.int())
        closeness.append(cosines.gather(1, best))
    return Neighbours(torch.cat(latents).numpy(), torch.cat(closeness).numpy())


def firing_together(codes: csr_array, count: int) -> Neighbours:
    """Return the latents whose firing correlates most with each one's, and the correlation (phi)."""
    fires = indicator(codes).astype(np.float32)
    by_latent = fires.T.tocsr()
    (rows, d_sae), fired = shape(codes), active_rows(codes).astype(np.float64)
    spread = np.sqrt(fired * (rows - fired))
    found = Neighbours(np.full((d_sae, count), -1, np.int32), np.zeros((d_sae, count), np.float32))
    for start in range(0, d_sae, LATENTS_AT_ONCE):
        both = (by_latent[start : start + LATENTS_AT_ONCE] @ fires).tocoo()
        row, other = both.coords
        latent, joint = row + start, both.data.astype(np.float64)  # rows * joint exceeds what float32 counts exactly
        scale = spread[latent] * spread[other]
        phi = np.divide(rows * joint - fired[latent] * fired[other], scale, out=np.zeros_like(scale), where=scale > 0)
        phi[latent == other] = 0.0
        keep = phi > 0
        put_best(found, latent[keep], other[keep], phi[keep])
    return found


def put_best(
    found: Neighbours, latent: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"], closeness: Float[np.ndarray, " n"]
) -> None:
    """Put into `found` the closest of each latent's pairs."""
    order = np.lexsort((other, -closeness, latent))
    latent, other, closeness = latent[order], other[order], closeness[order]
    place = np.arange(len(latent)) - np.searchsorted(latent, latent)
    first = place < found.latents.shape[1]
    found.latents[latent[first], place[first]] = other[first]
    found.closeness[latent[first], place[first]] = closeness[first]
