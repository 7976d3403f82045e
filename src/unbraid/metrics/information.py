"""Entropies of finite distributions, and mutual information of latents and factors from counts, in bits.

    H(p) = -sum p log2 p,   TC(s) = sum_i H(s_i) - H(s),   I(b; f) = sum n_bf / n log2(n n_bf / (n_b n_f))

A latent's bins are "inactive" and the quantiles of its active values: bins of equal width would put the whole of a
sparse latent into one. Counts give some bits to independent pairs too, and thousands of those outweigh the one that
matters, so a pair keeps its bits only when the likelihood-ratio (G) test can tell it from an independent one.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.special import xlogy
from torch import Tensor

from unbraid.metrics.sparse_counts import active_rows, indicator, shape

QUANTILES = 4
"""Bins of a latent's active values."""
ERRORS = 0.01
"""Expected number of independent pairs that keep bits, of all pairs compared together."""
CHUNK_ENTRIES = 2**22
"""Counts held at once: 32 MB in float64."""


def entropy(p: Float[Tensor, "*fold outcomes"]) -> Float[Tensor, "*fold"]:
    """Return the entropy in bits of distributions along the last axis."""
    return torch.special.entr(p).sum(-1) / math.log(2)


def binary_entropy(p: Float[Tensor, "*fold"]) -> Float[Tensor, "*fold"]:
    """Return the entropy in bits of a gate that is open with probability p."""
    return entropy(torch.stack([p, 1 - p], -1))


def support_bits(
    support: Bool[Tensor, "states latents"], weights: Float[Tensor, " states"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return (joint, factorised): H(s), and the sum of the entropies of its gates. `weights`: probability of each
    state."""
    _, which = support.unique(dim=0, return_inverse=True)
    joint = torch.zeros(int(which.max()) + 1, dtype=weights.dtype).index_add(0, which, weights)
    return entropy(joint), binary_entropy(weights @ support.to(weights)).sum()


def total_correlation(support: Bool[Tensor, "states latents"], weights: Float[Tensor, " states"]) -> Float[Tensor, ""]:
    """Return the bits by which gates depend on one another: sum_i H(s_i) - H(s)."""
    joint, factorised = support_bits(support, weights)
    return factorised - joint


def mutual_information(
    latents: csr_array, factors: csr_array, *, quantiles: int = QUANTILES, errors: float = ERRORS
) -> Float[Tensor, "latents factors"]:
    """Return the bits each latent shares with the presence of each factor; 0 where a G-test takes them for independent.

    `errors`: expected number of independent pairs it takes for dependent; infinity keeps all bits. Allocates latents x
    factors, in float32.
    """
    rows, width, count = (*shape(latents), shape(factors)[1])
    bins = quantile_gates(latents, quantiles)
    together = (bins.T @ indicator(factors)).tocsr()
    in_bin = active_rows(bins).reshape(width, quantiles)
    present = active_rows(factors)
    n_log_n = xlogy(np.arange(rows + 1), np.arange(rows + 1))  # all counts are whole
    from scipy.stats import chi2  # a second to import, for this number alone

    least = chi2.isf(min(1.0, errors / max(1, width * count)), df=quantiles) / 2
    bits = torch.zeros(width, count)
    step = max(1, CHUNK_ENTRIES // max(1, quantiles * count))
    for start in range(0, width, step):
        part = slice(start, start + step)
        held = in_bin[part]
        both = together[start * quantiles : (start + len(held)) * quantiles].toarray()
        nats = _nats(both.reshape(len(held), quantiles, count), held, present, rows, n_log_n)
        bits[part] = torch.from_numpy(np.where(nats > least, nats, 0.0) / (rows * math.log(2)))
    return bits


def _nats(both: np.ndarray, held: np.ndarray, present: np.ndarray, rows: int, n_log_n: np.ndarray) -> np.ndarray:
    """Return rows * I in nats [latents, factors], from counts of (latent, active bin, factor present)."""
    both = np.concatenate([both, present - both.sum(1, keepdims=True)], 1).astype(np.int64)
    held = np.concatenate([held, rows - held.sum(1, keepdims=True)], 1).astype(np.int64)
    present = present.astype(np.int64)
    cells = n_log_n[both].sum(1) + n_log_n[held[:, :, None] - both].sum(1)
    margins = n_log_n[held].sum(1)[:, None] + n_log_n[present] + n_log_n[rows - present]
    return cells - margins + n_log_n[rows]


def quantile_gates(latents: csr_array, quantiles: int) -> csr_array:
    """Return the active bin of each row [rows, latents * quantiles]. Equal values share the bin of the lowest rank."""
    rows, width = shape(latents)
    entries = latents.tocoo()
    row, latent = entries.coords
    order = np.lexsort((entries.data, latent))
    latent, value = latent[order], entries.data[order]
    fired = np.bincount(latent, minlength=width)
    place = np.arange(len(latent))
    fresh = np.ones(len(latent), dtype=bool)
    fresh[1:] = (latent[1:] != latent[:-1]) | (value[1:] != value[:-1])
    rank = np.maximum.accumulate(np.where(fresh, place, 0)) - (fired.cumsum() - fired)[latent]
    column = latent.astype(np.int64) * quantiles + rank * quantiles // fired[latent]
    return csr_array((np.ones(len(column)), (row[order], column)), shape=(rows, width * quantiles))
