"""k-sparse probes: few latents that tell a factor, ranked by a sparse probe, taken while each makes a probe better.

    min_w,b  mean over rows of c softplus(-y (z . w + b))  +  0.01 |w|_1
    y = 1 and c = inactive rows / active rows where the factor is active; y = -1 and c = 1 where it is not

The latents of largest w > 0 are ranked; of the first k, k = 1, 2, …, 10, a balanced logistic probe is fitted on the
same rows and its F1 taken on others, as long as F1 rises by more than 0.03. After SAEBench's absorption (Chanin et al.
2024, arXiv 2409.14507), which fits the sparse probe by 50 epochs of Adam, in units of the model. Here codes are scaled
to root mean square 1 where active, and a latent with w <= 0 is never taken.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from unbraid.metrics.sparse_counts import shape

LATENTS = 10
"""Latents that may be taken. This and the next two are SAEBench's."""
GAIN = 0.03
"""Rise of F1 for which another latent is taken."""
PENALTY = 0.01
"""Weight of |w|_1."""
TOLERANCE = 1e-3
"""liblinear's: ten times smaller takes the same latents."""
STEPS, DONE = 50, 1e-9
"""Newton steps at most, and the share of the loss that the last can save."""
RIDGE = 1e-9
"""What keeps the matrix from being singular where the bias is sure of every row."""
INTERCEPT = 100
"""liblinear penalises the intercept too: scaled up, it is nearly free."""

Rows = Bool[np.ndarray, " rows"]


class Labels(NamedTuple):
    """Codes [rows, d_sae], and the rows in which the factor is active."""

    latents: csr_array
    active: Rows


class Taken(NamedTuple):
    """The latents taken for a factor, and how well a probe of them does."""

    latents: Int[np.ndarray, " taken"]
    """The best first."""
    f1: float
    """F1 of the probe that reads them, on rows it was not fitted on; 0 when there are none."""


def k_sparse(fit: Labels, held: Labels) -> Taken:
    """Take latents that tell the factor. `fit` must have rows with the factor and rows without."""
    ranked = ranking(fit)
    best = Taken(ranked[:0], 0.0)
    unit = float(scale(fit.latents))
    chosen: list[Any] = [part.latents[:, ranked].toarray() for part in (fit, held)]
    z, others = chosen[0] / unit, chosen[1] / unit
    for k in range(1, len(ranked) + 1):
        f1 = probe_f1(z[:, :k], fit.active, others[:, :k], held.active)
        if k > 1 and f1 <= best.f1 + GAIN:
            break
        best = Taken(ranked[:k], f1)
    return best


def ranking(fit: Labels) -> Int[np.ndarray, " ranked"]:
    """Return at most ten latents with positive weight for the factor, the largest first."""
    living = np.flatnonzero(np.bincount(fit.latents.indices, minlength=shape(fit.latents)[1]))
    if not len(living):
        return living
    z: Any = fit.latents if len(living) == shape(fit.latents)[1] else fit.latents[:, living]
    # liblinear reads 32-bit indices only.
    scaled = (z.data / scale(fit.latents), z.indices.astype(np.int32), z.indptr.astype(np.int32))
    rows, active = len(fit.active), fit.active.sum()
    model = LogisticRegression(
        C=1 / PENALTY, l1_ratio=1, solver="liblinear", intercept_scaling=INTERCEPT, tol=TOLERANCE, max_iter=1000,
        random_state=0,
    )  # fmt: skip
    model.fit(
        csr_array(scaled, shape=z.shape), fit.active, sample_weight=np.where(fit.active, rows / active - 1, 1) / rows
    )
    weights = model.coef_[0]
    best = np.argsort(-weights, kind="stable")[:LATENTS]
    return living[best[weights[best] > 0]]


def probe_f1(
    z: Float[np.ndarray, "rows k"],
    active: Bool[np.ndarray, " rows"],
    others: Float[np.ndarray, "other k"],
    other_active: Bool[np.ndarray, " other"],
) -> float:
    """Return the F1 on other rows of a balanced logistic probe of these codes."""
    weights = np.where(active, len(active) / (2 * active.sum()), len(active) / (2 * (~active).sum()))
    # Rows in which nothing fires, by far the most, are one row of each class with the weight of all.
    fires = z.any(1)
    kinds = [active[fires], np.array([False, True])]
    silent = [weights[~fires & (active == kind)].sum() for kind in kinds[1]]
    rows, weights = np.concatenate([z[fires], np.zeros((2, z.shape[1]))]), np.append(weights[fires], silent)
    there = weights > 0
    solved = balanced_probe(rows[there], np.concatenate(kinds)[there], weights[there])
    return f1(others @ solved[:-1] + solved[-1] > 0, other_active)


def balanced_probe(
    z: Float[np.ndarray, "rows k"], active: Bool[np.ndarray, " rows"], weights: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " k_and_bias"]:
    """Return the weights and the bias of a logistic probe, by Newton's method: sum of weighted losses + |w|^2 / 2, as
    scikit-learn's, which takes five times as long on so few columns."""
    x = np.column_stack([z, np.ones(len(z))])
    ridge = np.append(np.ones(z.shape[1]), 0.0)
    loss = lambda w: float(weights @ np.logaddexp(0, np.where(active, -1, 1) * (x @ w)) + 0.5 * ridge @ w**2)
    w = np.zeros(len(ridge))
    now = loss(w)
    for _ in range(STEPS):
        p = expit(x @ w)
        gradient = x.T @ (weights * (p - active)) + ridge * w
        step = np.linalg.solve((x.T * (weights * p * (1 - p))) @ x + np.diag(ridge + RIDGE), gradient)
        if gradient @ step < DONE * now:
            break
        while (new := loss(w - step)) > now:
            step = step / 2
        w, now = w - step, new
    return w


def f1(found: Rows, active: Rows) -> float:
    """Return F1, 0 when nothing is found and nothing is there."""
    return float(2 * np.sum(found & active) / max(1, found.sum() + active.sum()))


def scale(latents: csr_array) -> Float[np.ndarray, ""] | float:
    """Return the root mean square of the active codes; 1 when there are none."""
    return np.sqrt(np.mean(latents.data**2)) if latents.nnz else 1.0
