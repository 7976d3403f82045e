"""Shapes and counts of sparse matrices of codes and factors."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array


def shape(matrix: csr_array) -> tuple[int, int]:
    """Return (rows, columns), which scipy does not type."""
    found: Any = matrix.shape
    return found


def indicator(matrix: csr_array) -> csr_array:
    """Return 1 where an entry is stored."""
    ones: Any = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones


def active_rows(matrix: csr_array) -> np.ndarray:
    """Return the number of entries of each column."""
    return np.bincount(matrix.indices, minlength=shape(matrix)[1])
