"""Codes of a dictionary and the true factors of the same held-out rows."""

from typing import Literal

from unbraid.dictionary import Dictionary
from unbraid.encoding import codes
from unbraid.observed import Observed, magnitudes
from unbraid.truth import Truth

ROWS = 32_768
"""Held-out rows an eval counts on, unless it says otherwise."""


def observe(
    dictionary: Dictionary,
    truth: Truth,
    *,
    rows: int = ROWS,
    split: Literal["train", "eval"] = "eval",
    seed: int = 0,
) -> Observed:
    """Encode labelled rows. `dictionary`: for raw activations."""
    labelled = truth.labelled(rows, split=split, seed=seed)
    return Observed(codes(dictionary, labelled.x), magnitudes(labelled))
