"""Codes of many rows as one sparse matrix."""

import copy

import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary

CHUNK = 4096
"""Rows encoded at once."""


def moved(dictionary: Dictionary, device: torch.device) -> Dictionary:
    """Return a dictionary on a device: itself where it is there, else a copy, as others read the one given too."""
    return dictionary if dictionary.W_dec.device == device else copy.deepcopy(dictionary).to(device)


@torch.no_grad()
def code_matrix(dictionary: Dictionary, x: Float[Tensor, "batch d_in"]) -> csr_array:
    """Return the codes of x as a sparse matrix [batch, d_sae] in float64, each times the norm of its atom: the size of
    what it writes. They are computed where x is."""
    dictionary = moved(dictionary, x.device)
    norms = dictionary.norms()
    values, rows, latents = [], [], []
    for start in range(0, len(x), CHUNK):
        value, row, latent = dictionary.codes(x[start : start + CHUNK]).entries()
        values.append((value * norms[latent]).double().cpu())
        rows.append(row.cpu() + start)
        latents.append(latent.cpu())
    entries = (torch.cat(values).numpy(), (torch.cat(rows).numpy(), torch.cat(latents).numpy()))
    return csr_array(entries, shape=(len(x), dictionary.d_sae))
