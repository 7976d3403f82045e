"""Searches of matrices on the CPU by NumPy: what torch finds, two to five times as fast.

NumPy compares, and finds the n-th largest, with vector instructions; torch's comparisons and `nonzero` go through truth
values one by one, and its `topk` carries places along. Which entries are found is exact, so the same.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WHOLE = 256
"""Columns up to which a row's k-th largest is found at once, not in two stages (measured)."""
MEMBERS = 8
"""Columns of a group, of which the first stage sees the maximum alone."""
WORD = 8
"""Truth values that are looked at together where few are true."""
BY_WORDS = (0.015, 0.1)
"""Shares of true entries between which that is faster (measured): NumPy looks at each, and guesses wrong at most true
ones; it does not guess where a tenth is true."""


def searchable(matrix: Tensor) -> bool:
    """Return whether NumPy can search it: it is on the CPU, and not of bfloat16, which NumPy does not have."""
    return matrix.is_cpu and matrix.dtype in (torch.float32, torch.float64)


def true_places(mask: Bool[Tensor, " *entry"]) -> Int[Tensor, " hit"]:
    """Return the flat places of the true entries, ascending."""
    return torch.from_numpy(_true_places(mask.numpy()))


def places_above(matrix: Float[Tensor, "rows column"], bound: Tensor | float) -> Int[Tensor, " hit"]:
    """Return the flat places of the entries above a bound, or above their column's, ascending."""
    return torch.from_numpy(_true_places(_above(matrix, bound)))


def count_above(matrix: Float[Tensor, "rows column"], bound: Float[Tensor, " column"]) -> int:
    """Return the number of entries above their column's bound."""
    return int(np.count_nonzero(_above(matrix, bound)))


def _above(matrix: Tensor, bound: Tensor | float) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # NaN is above nothing
        return matrix.detach().numpy() > (bound.detach().numpy() if isinstance(bound, Tensor) else bound)


def among_largest(values: Float[Tensor, " nnz"], count: int) -> Bool[Tensor, " nnz"] | None:
    """Return whether each value is among so many largest, of which there are at least as many; None where equal values,
    or NaN, leave open which these are."""
    entries = values.detach().numpy()
    mask = entries >= np.partition(entries, len(entries) - count)[len(entries) - count]
    return torch.from_numpy(mask) if np.count_nonzero(mask) == count else None


def _true_places(mask: np.ndarray) -> np.ndarray:
    """Return the flat places of the true entries, ascending."""
    entries = mask.reshape(-1)
    least, most = BY_WORDS
    if entries.size % WORD or not least * entries.size < np.count_nonzero(entries) < most * entries.size:
        return np.flatnonzero(entries)
    words = entries.view(np.uint64)
    some = np.flatnonzero(words != 0)
    found = np.flatnonzero(words[some].view(np.bool_))
    return (some * WORD)[found // WORD] + found % WORD


def smallest_of_largest(values: Float[Tensor, " entry"], count: int) -> float:
    """Return the smallest of so many largest values; NaN where one of these is."""
    return float(np.partition(values.detach().numpy(), len(values) - count)[len(values) - count :].min())


def largest_places(values: Float[Tensor, " nnz"], count: int) -> Int[Tensor, " kept"] | None:
    """Return the places of so many largest values, of which there are more, ascending; None where equal values, or NaN,
    leave open which these are."""
    places = _true_places(values.numpy() >= smallest_of_largest(values, count))
    return torch.from_numpy(places) if len(places) == count else None


def among_largest_in_rows(matrix: Float[Tensor, "rows column"], k: int) -> Bool[Tensor, "rows column"] | None:
    """Return whether each entry is among the k largest of its row; None where equal values, or NaN, leave open which
    these are."""
    entries, width = matrix.detach().numpy(), matrix.shape[1]
    mask = entries >= np.partition(entries, width - k, axis=1)[:, width - k, None]
    return torch.from_numpy(mask) if np.count_nonzero(mask) == k * len(entries) else None


def largest_in_rows(
    matrix: Float[Tensor, "rows column"], k: int
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]] | None:
    """Return values and columns of the k largest of each row, columns ascending; None where equal values, or NaN, leave
    open which these are."""
    groups = matrix.shape[1] // MEMBERS
    if matrix.shape[1] <= WHOLE or groups < k:
        return _of_whole_rows(matrix, k)
    # A row's k largest lie in the k groups with the largest maxima, or among the last columns, which fill no group.
    # Columns of a group are `groups` apart, so that candidates, a member of each group after another, ascend.
    grouped, last = matrix[:, : groups * MEMBERS].unflatten(1, (MEMBERS, groups)), matrix[:, groups * MEMBERS :]
    best = _of_whole_rows(grouped.amax(1), k)
    if best is None:
        return None
    group = best[1]
    candidates = grouped.gather(2, group.unsqueeze(1).expand(-1, MEMBERS, k)).flatten(1)
    found = _of_whole_rows(torch.cat([candidates, last], 1) if last.numel() else candidates, k)
    if found is None:
        return None
    values, place = found
    member = place.div(k, rounding_mode="floor")
    columns = member * groups + group.gather(1, place - member * k)
    if last.numel():
        columns = torch.where(member < MEMBERS, columns, place + MEMBERS * (groups - k))
    return values, columns


def _of_whole_rows(matrix: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """`largest_in_rows` by the k-th largest of each whole row."""
    entries, (rows, width) = matrix.detach().numpy(), matrix.shape
    least = np.partition(entries, width - k, axis=1)[:, width - k, None]
    places = torch.from_numpy(np.flatnonzero(entries >= least))
    if len(places) != rows * k:
        return None
    columns = places.view(rows, k) - torch.arange(0, rows * width, width).unsqueeze(1)
    return matrix.reshape(-1).index_select(0, places).view(rows, k), columns
