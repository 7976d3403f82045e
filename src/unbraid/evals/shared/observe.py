"""Codes of a dictionary together with the true factors of the same held-out rows."""

from typing import Literal

import torch

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.metrics.latents_and_factors import LatentsAndFactors, magnitudes
from unbraid.sources.truth import Labelled, Truth

ROWS = 32_768
"""Number of held-out rows that evals use by default."""


def observe(
    dictionary: Dictionary,
    truth: Truth,
    *,
    rows: int = ROWS,
    split: Literal["train", "eval"] = "eval",
    seed: int = 0,
) -> LatentsAndFactors:
    """Encode labelled rows. `dictionary`: for raw activations."""
    return observe_rows(dictionary, truth.labelled(rows, split=split, seed=seed))


@torch.no_grad()
def observe_rows(dictionary: Dictionary, labelled: Labelled) -> LatentsAndFactors:
    """Encode these labelled rows. `dictionary`: for raw activations."""
    return LatentsAndFactors(code_matrix(dictionary, labelled.x), magnitudes(labelled))
