"""The untrained baseline of a score: random unit atoms with their transpose as encoder, at the same width and L0."""

import torch
from scipy.sparse import csr_array

from unbraid import seeding
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import set_tied
from unbraid.dictionary.weights import Acts
from unbraid.metrics.sparse_counts import shape

SEED = 0
"""Seed of the random atoms, the same for every run."""


def matching_k(latents: csr_array) -> int:
    """Return the k at which TopK comes nearest to the L0 of these codes [batch, d_sae]."""
    rows, d_sae = shape(latents)
    return min(d_sae, max(1, round(latents.nnz / max(1, rows))))


def untrained(d_sae: int, k: int, x: Acts) -> Dictionary:
    """Return an untrained TopK(k) dictionary for raw activations like x."""
    made = Dictionary(x.shape[1], d_sae, TopK(k)).requires_grad_(False)
    set_tied(made, torch.randn(d_sae, x.shape[1], generator=seeding.stream(SEED, "chance")), x)
    return made
