"""Scores of one-to-one correspondence: DCI, MIG, SAP, modularity, InfoM and InfoC, from a latents x factors matrix.

    D = sum_i r_i (1 - H_F(R_i. / r_i)) / sum r,   C = the same over columns, H_m        (DCI, Eastwood & Williams 2018)
    gap = mean_f (R_(1)f - R_(2)f)                              (MIG on I / H(f), Chen et al. 2018; SAP on R^2)
    modularity = mean_i 1 - (sum_f I_if^2 - max_f I_if^2) / ((F - 1) max_f I_if^2)          (Ridgeway & Mozer 2018)
    concentration = (mean_i max_f N_if / sum_f N_if - 1/F) / (1 - 1/F)       (InfoM; InfoC on the transpose; 2404.10282)

H_F is entropy to base F. Base-m completeness is blind when m is large (ten equal latents of 16,384 still give .76), so
DCI comes with effective counts 2^H. Rows and columns without anything are left out of D, C, modularity and
concentration (disentanglement_lib counts such rows as 0 in its modularity: `modularity_of_all`), and NaN is what is
left when nothing is; the gap counts such columns as 0. With one column nothing can
be distinguished: NaN too.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.metrics.information import entropy

Matrix = Float[Tensor, "latents factors"]


class DCI(NamedTuple):
    """Disentanglement and completeness, from 0 to 1, and effective counts of factors and latents."""

    disentanglement: float
    completeness: float
    factors_per_latent: float
    """2^H of each latent's importances, weighted as D is."""
    latents_per_factor: float
    """2^H of each factor's importances, mean over the factors that have any."""


def dci(importance: Matrix) -> DCI:
    """Return DCI of non-negative importances. NaN where there is one factor, or one latent."""
    latents, factors = importance.shape
    rows, columns = importance.sum(1), importance.sum(0)
    own = entropy(importance[rows > 0] / rows[rows > 0].unsqueeze(1))
    per_factor = entropy((importance[:, columns > 0] / columns[columns > 0]).T)
    by_row, by_column = rows[rows > 0] / rows.sum(), columns[columns > 0] / columns.sum()
    return DCI(
        disentanglement=_weighted(1 - own / math.log2(factors), by_row) if factors > 1 else math.nan,
        completeness=_weighted(1 - per_factor / math.log2(latents), by_column) if latents > 1 else math.nan,
        factors_per_latent=_weighted(own.exp2(), by_row),
        latents_per_factor=float(per_factor.exp2().mean()),
    )


def _weighted(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> float:
    return float(values @ weights) if len(values) else math.nan


def gap(matrix: Matrix) -> float:
    """Return the mean over factors of the largest entry less the second largest; a missing latent counts as 0."""
    padded = torch.cat([matrix, matrix.new_zeros(2, matrix.shape[1])])
    best, second = padded.topk(2, dim=0).values
    return float((best - second).double().mean())


def modularity(bits: Matrix) -> float:
    """Return the modularity of latents, NaN for one factor. It tends to 1 as factors become many, whatever the code:
    compare at one number of factors."""
    squares = bits[bits.sum(1) > 0].double().square()
    largest = squares.amax(1) if squares.numel() else squares.sum(1)
    others = (squares.sum(1) - largest) / largest
    return float((1 - others / (bits.shape[1] - 1)).mean()) if bits.shape[1] > 1 else math.nan


def modularity_of_all(bits: Matrix, latents: int) -> float:
    """Return the modularity over `latents`, of which those without a row in `bits`, or with nothing in theirs, count as
    0: as disentanglement_lib has it (`modularity_explicitness.py`)."""
    telling = int((bits.sum(1) > 0).sum())
    if not telling or not latents:
        return 0.0 if bits.shape[1] > 1 and latents else math.nan
    return modularity(bits) * telling / latents


def concentration(shares: Float[Tensor, "rows columns"]) -> float:
    """Return 0 when every row is spread evenly over the columns, 1 when each is in one column; NaN without rows."""
    columns = shares.shape[1]
    kept = shares[shares.sum(1) > 0].double()
    if columns < 2 or not len(kept):
        return math.nan
    share = float((kept.amax(1) / kept.sum(1)).mean())
    return (share - 1 / columns) / (1 - 1 / columns)
