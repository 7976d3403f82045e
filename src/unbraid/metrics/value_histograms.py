"""Histograms of the values that each latent takes where it fires."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from unbraid.metrics.sparse_counts import active_rows, shape


class Histograms(NamedTuple):
    """Counts in bins of equal width from the smallest value of a latent to its largest; 0 for one that never fires."""

    counts: Int[np.ndarray, "d_sae bins"]
    lowest: Float[np.ndarray, " d_sae"]
    highest: Float[np.ndarray, " d_sae"]


def value_histograms(codes: csr_array, bins: int) -> Histograms:
    """Return a histogram of the stored entries of every column. Where all values are equal they are in the last bin."""
    d_sae = shape(codes)[1]
    value, latent = codes.data.astype(np.float64), codes.indices
    silent = active_rows(codes) == 0
    lowest, highest = np.full(d_sae, np.inf), np.full(d_sae, -np.inf)
    np.minimum.at(lowest, latent, value)
    np.maximum.at(highest, latent, value)
    lowest[silent] = highest[silent] = 0.0
    width = highest - lowest
    place = np.full(len(value), float(bins))
    wide = width[latent] > 0
    place[wide] = bins * ((value - lowest[latent])[wide] / width[latent][wide])
    place = np.minimum(place.astype(int), bins - 1)
    counts = np.bincount(latent * bins + place, minlength=d_sae * bins).reshape(d_sae, bins)
    return Histograms(counts, lowest, highest)
