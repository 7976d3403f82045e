"""Sparse matrices of codes and factors: what scipy's types leave unsaid, and counts."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array


def shape(matrix: csr_array) -> tuple[int, int]:
    """(rows, columns)."""
    found: Any = matrix.shape
    return found


def indicator(matrix: csr_array) -> csr_array:
    """1 where an entry is stored."""
    ones: Any = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones


def active_rows(matrix: csr_array) -> np.ndarray:
    """The number of entries of each column."""
    return np.bincount(matrix.indices, minlength=shape(matrix)[1])
