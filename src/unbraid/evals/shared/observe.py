"""Codes of a dictionary together with the true factors of the same held-out rows, and those of an untrained one.

What depends on the source alone is made once for all runs that are scored together, codes once for all evals of a run
(`unbraid.system.sharing`).
"""

from typing import NamedTuple

import torch
from scipy.sparse import csr_array

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.shared.untrained import matching_k, untrained
from unbraid.metrics.latents_and_factors import LatentsAndFactors, magnitudes
from unbraid.metrics.sparse_counts import shape
from unbraid.sources.base import Source, Split
from unbraid.sources.stream import held_out
from unbraid.sources.truth import Labelled, Truth
from unbraid.system.sharing import shared

ROWS = 32_768
"""Number of held-out rows that evals use by default."""


@shared
def labelled_rows(truth: Truth, rows: int = ROWS, split: Split = "eval") -> Labelled:
    """Return labelled rows, the same for every eval and run of a source."""
    return truth.labelled(rows, split=split, seed=0)


@shared
def factor_matrix(truth: Truth, rows: int = ROWS, split: Split = "eval") -> csr_array:
    """Return the magnitudes of the factors in the labelled rows."""
    return magnitudes(labelled_rows(truth, rows, split))


@shared
@torch.no_grad()
def observe(dictionary: Dictionary, truth: Truth, rows: int = ROWS, split: Split = "eval") -> LatentsAndFactors:
    """Encode labelled rows. `dictionary`: for raw activations."""
    factors = factor_matrix(truth, rows, split)
    return LatentsAndFactors(code_matrix(dictionary, labelled_rows(truth, rows, split).x), factors)


@shared
@torch.no_grad()
def held_out_codes(dictionary: Dictionary, source: Source, rows: int = ROWS) -> csr_array:
    """Return the codes of held-out activations. `dictionary`: for raw activations."""
    return code_matrix(dictionary, held_out(source, rows).x)


class Baseline(NamedTuple):
    """The untrained dictionary of a source, a width and an L0: equal for every run that shares these."""

    truth: Truth
    rows: int
    """Labelled held-out rows, of which it takes the mean."""
    d_sae: int
    k: int

    @property
    def dictionary(self) -> Dictionary:
        return _untrained(self)

    def observe(self) -> LatentsAndFactors:
        """Encode the labelled held-out rows."""
        return observe(self.dictionary, self.truth, self.rows)


def baseline_of(observed: LatentsAndFactors, truth: Truth, rows: int = ROWS) -> Baseline:
    """Return the untrained dictionary like the one with these codes of labelled held-out rows."""
    return Baseline(truth, rows, shape(observed.latents)[1], matching_k(observed.latents))


@shared
def _untrained(baseline: Baseline) -> Dictionary:
    return untrained(baseline.d_sae, baseline.k, labelled_rows(baseline.truth, baseline.rows).x)
