"""What a score gives without learning: random unit atoms read by their transpose, as wide and as sparse as a dictionary
that learned.
"""

from typing import Any

import torch
from scipy.sparse import csr_array

from unbraid import seeding
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import set_tied
from unbraid.dictionary.weights import Acts

SEED = 0
"""Of the random atoms: the same for every run."""


def untrained_like(latents: csr_array, x: Acts) -> Dictionary:
    """For the codes `latents` [batch, d_sae] of raw activations x: as many latents, TopK at the nearest L0 there is."""
    shape: Any = latents.shape
    rows, d_sae = shape
    k = min(d_sae, max(1, round(latents.nnz / max(1, rows))))
    made = Dictionary(x.shape[1], d_sae, TopK(k)).requires_grad_(False)
    set_tied(made, torch.randn(d_sae, x.shape[1], generator=seeding.stream(SEED, "chance")), x)
    return made
