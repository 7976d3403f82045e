"""Interventional robustness (IRS): how little a latent moves while one factor stands still and the others vary.

    IRS_i = max_f 1 - mean_(k = 0, 1) q99 |z_i - E(z_i | f = k)| / max |z_i - E z_i|

averaged over latents in proportion to that maximum (Suter et al. 2019, as in disentanglement_lib). Conditioning stands
in for intervening, so factors must be independent (`independent`). A latent that fires in less than 1 % of either
group's rows passes for robust whatever it reads: on sparse codes the score rewards rarity, and only its distance from
chance says anything.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array

from unbraid.metrics.information import mutual_information
from unbraid.metrics.sparse_counts import active_rows, indicator

QUANTILE = 0.99
ERRORS = 0.01
"""Expected number of pairs of independent factors taken for dependent."""
FEWEST = 32
"""Active rows from which a factor's dependence on others is tested."""
FACTORS = 64
"""Factors held still, at most: the most frequent."""


def independent(factors: csr_array) -> bool:
    """Return whether a G-test finds no two factors of which one says anything about the other."""
    active = indicator(factors)[:, active_rows(factors) >= FEWEST]
    bits = mutual_information(active, active, quantiles=1, errors=ERRORS).fill_diagonal_(0.0)
    return not bool((bits > 0).any())


def robustness(latents: csr_array, factors: csr_array) -> float:
    """Return IRS, NaN when no latent or no factor varies."""
    columns: csc_array = latents.tocsc()
    rows, width = len(latents.indptr) - 1, len(columns.indptr) - 1
    latent = np.repeat(np.arange(width), np.diff(columns.indptr))
    value, row = columns.data, columns.indices
    spread = _largest_deviation(latent, value, rows, width)
    present = active_rows(factors)
    best = np.full(width, -np.inf)
    states: csc_array = factors.tocsc()
    varying = np.flatnonzero((present > 0) & (present < rows))
    for factor in varying[np.argsort(-present[varying], kind="stable")][:FACTORS]:
        active = np.zeros(rows, dtype=bool)
        active[states.indices[states.indptr[factor] : states.indptr[factor + 1]]] = True
        groups = ((active[row], int(present[factor])), (~active[row], rows - int(present[factor])))
        moved = sum(_quantile(latent[own], value[own], size, width) for own, size in groups) / 2
        best = np.maximum(best, 1 - np.divide(moved, spread, out=np.ones(width), where=spread > 0))
    varies = (spread > 0) & (best > -np.inf)
    return float(np.average(best[varies], weights=spread[varies])) if varies.any() else float("nan")


def _largest_deviation(
    latent: Int[np.ndarray, " nnz"], value: Float[np.ndarray, " nnz"], rows: int, width: int
) -> Float[np.ndarray, " width"]:
    """Return max |z - mean z| of each latent over all rows, those in which it is 0 among them."""
    fired = np.bincount(latent, minlength=width)
    mean = np.bincount(latent, value, width) / rows
    largest = np.where(fired < rows, np.abs(mean), 0.0)
    np.maximum.at(largest, latent, np.abs(value - mean[latent]))
    return np.where(largest > 1e-12, largest, 0.0)


def _quantile(
    latent: Int[np.ndarray, " nnz"], value: Float[np.ndarray, " nnz"], rows: int, width: int
) -> Float[np.ndarray, " width"]:
    """Return the 99 % quantile of |z - mean z| over `rows` rows of each latent, interpolated as numpy does.

    `latent` ascends. The rows in which a latent is 0 all deviate alike, so they are one block among the sorted others.
    """
    fired = np.bincount(latent, minlength=width)
    mean = np.bincount(latent, value, width) / rows
    deviation, scale = np.abs(value - mean[latent]), 2 * max(1e-300, float(np.abs(value).max(initial=0.0))) * 1.01
    # Sorting latent + share of 1 is sorting within latents, ten times faster than by two keys.
    deviation = (np.sort(latent + deviation / scale) - latent) * scale
    start, zeros, of_zero = fired.cumsum() - fired, rows - fired, np.abs(mean)
    below = np.bincount(latent, deviation < of_zero[latent], width).astype(int)

    def statistic(place: int) -> np.ndarray:
        after = np.where(place < below, place, place - zeros)
        is_zero = (below <= place) & (place < below + zeros)
        return np.where(is_zero, of_zero, deviation[np.where(is_zero, 0, start + after)] if len(deviation) else 0.0)

    place = QUANTILE * (rows - 1)
    low = int(place)
    return statistic(low) + (place - low) * (statistic(min(low + 1, rows - 1)) - statistic(low))
