"""Codes of a dictionary and the true factors of the same rows, sparse, with the counts that evals share."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.metrics.sparse_counts import active_rows, indicator
from unbraid.sources.truth import Labelled


@dataclass(frozen=True, eq=False)
class LatentsAndFactors:
    """Latents and factors of the same rows. Counts are exact integers in float64; a latent fires where it is not 0."""

    latents: csr_array
    """Codes [rows, d_sae]."""
    factors: csr_array
    """Magnitudes [rows, factors]."""

    @property
    def rows(self) -> int:
        return len(self.latents.indptr) - 1

    @cached_property
    def latent_counts(self) -> Float[Tensor, " d_sae"]:
        """The number of rows in which each latent fires."""
        return _counts(self.latents)

    @cached_property
    def factor_counts(self) -> Float[Tensor, " factors"]:
        """The number of rows in which each factor is active."""
        return _counts(self.factors)

    @cached_property
    def joint_counts(self) -> csr_array:
        """The number of rows in which a latent and a factor are both active [d_sae, factors]."""
        return (indicator(self.latents).T @ indicator(self.factors)).tocsr()


def magnitudes(labelled: Labelled) -> csr_array:
    """Return magnitudes [batch, factors] as a sparse matrix."""
    places = (labelled.rows.numpy(), labelled.factors.numpy())
    return csr_array((labelled.magnitudes.double().numpy(), places), shape=(len(labelled.x), labelled.count))


def _counts(matrix: csr_array) -> Float[Tensor, " column"]:
    return torch.from_numpy(active_rows(matrix).astype(np.float64))
