"""Constraints on atoms and readers that training restores after every step."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.weights import Weights


@torch.no_grad()
def clip_cosine_to_init(
    atoms: Float[Tensor, "d_sae d_in"], start: Float[Tensor, "d_sae d_in"], cosine: float
) -> Float[Tensor, "d_sae d_in"]:
    """Return the nearest unit vectors to `atoms` (of unit norm) whose cosine to `start` is at least `cosine`."""
    parallel = (atoms * start).sum(1, keepdim=True)
    orthogonal = atoms - parallel * start
    orthogonal = orthogonal / torch.linalg.vector_norm(orthogonal, dim=1, keepdim=True).clamp_min(1e-12)
    return torch.where(parallel < cosine, cosine * start + math.sqrt(1 - cosine**2) * orthogonal, atoms)


@torch.no_grad()
def align(dictionary: Weights) -> None:
    """Move every reader along its atom, of unit norm, to the nearest one whose product with it is 1."""
    atoms = dictionary.W_dec
    for readers, part in zip(dictionary.W_enc.T.split(2048), atoms.split(2048), strict=True):
        readers.addcmul_(part, 1 - (readers * part).sum(1, keepdim=True))
