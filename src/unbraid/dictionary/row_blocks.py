"""Rows of a dense code a few at a time, so that what is made of them stays in cache.

On the CPU a fresh matrix of batch x d_sae costs five times as much as the arithmetic that fills it.
"""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

ENTRIES = {"cpu": 2**18}
"""Of one block, by kind of device; all rows at once on others."""


def row_blocks(*matrices: Float[Tensor, "batch d_sae"]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few rows of every matrix, then the next few."""
    first = matrices[0]
    rows = max(1, ENTRIES.get(first.device.type, first.numel()) // max(1, first.shape[1]))
    return zip(*(matrix.split(rows) for matrix in matrices), strict=True)
