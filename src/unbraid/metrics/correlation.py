"""Correlations of sparse columns, each with each, and the ranks that make them Spearman's."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.metrics.sparse_counts import shape

CHUNK_ENTRIES = 2**22
"""Correlations computed at once: 32 MB in float64."""


def correlations(ours: csr_array, theirs: csr_array) -> Float[Tensor, "a b"]:
    """Return Pearson's correlation of every column with every other of the same rows; 0 where one never varies.

    Allocates a x b, in float32.
    """
    (rows, a), b = shape(ours), shape(theirs)[1]
    mean, deviation = _moments(ours)
    other_mean, other_deviation = _moments(theirs)
    products = (ours.T @ theirs).tocsr()
    found = torch.zeros(a, b)
    step = max(1, CHUNK_ENTRIES // max(1, b))
    for start in range(0, a, step):
        part = slice(start, start + step)
        covariance = products[part].toarray() / rows - np.outer(mean[part], other_mean)
        scale = np.outer(deviation[part], other_deviation)
        found[part] = torch.from_numpy(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))
    return found.clamp_(-1, 1)


def _moments(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; a deviation within rounding of 0 is 0."""
    rows, columns = shape(matrix)
    squares: Any = matrix.data**2
    mean = np.bincount(matrix.indices, matrix.data, columns) / rows
    square = np.bincount(matrix.indices, squares, columns) / rows
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0))


def ranks(matrix: csr_array) -> csr_array:
    """Return each entry's rank in its column, less the rank that the zeros share: Pearson's of ranks is Spearman's.

    Equal values share their mean rank.
    """
    rows, columns = shape(matrix)
    entries = matrix.tocoo()
    row, column = entries.coords
    order = np.lexsort((entries.data, column))
    value, column = entries.data[order], column[order]
    fresh = np.ones(len(value), dtype=bool)
    fresh[1:] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
    group = fresh.cumsum() - 1
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(value)) - 1
    counts = np.bincount(column, minlength=columns)
    below = np.bincount(column[value < 0], minlength=columns)
    zeros = rows - counts
    place = (first + last)[group] / 2 + 1 - (counts.cumsum() - counts)[column]
    rank = place + np.where(value > 0, zeros[column], 0)
    centred = rank - (below + (zeros + 1) / 2)[column]
    return csr_array((centred, (row[order], column)), shape=(rows, columns))
