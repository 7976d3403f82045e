"""Linear probes of known factors: differences of class means, and logistic regression of all factors at once.

    difference_f = mean(x | f active) - mean(x | f inactive)
    (w_f, b_f) = argmin  sum_rows [softplus(logit) - active logit] + l2/2 |w|^2,   logit = x . w + b

The second is scikit-learn's LogisticRegression(C=1/l2), for thousands of factors with one pass over the rows a step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from unbraid.sources.truth import Labelled

CHUNK_ENTRIES = 2**22
"""Rows times factors held at once: 32 MB in float64."""
ITERATIONS = 300
STEEPEST = 0.5
"""Gradient at which a factor is done, where the loss is summed over rows and its curvature starts as 1: a fraction of a
nat over all rows."""


@dataclass(frozen=True)
class Probes:
    """Logit of each factor: x @ weights.T + bias. NaN for factors that are never, or always, active."""

    weights: Float[Tensor, "factors d_in"]
    bias: Float[Tensor, " factors"]


def difference_of_means(
    labelled: Labelled, parents: Int[Tensor, " factors"] | None = None
) -> Float[Tensor, "factors d_in"]:
    """Return the mean where each factor is active, less the mean where it is not; NaN for factors never, or always,
    active.

    With `parents`, a child is compared with the rows in which its parent is active and it is not: over all rows its
    difference would hold its parent's direction too. Rows with the child and without its parent are left out.
    """
    sums, counts = sums_where_active(labelled)
    total = labelled.x.double().sum(0).expand_as(sums)
    rows = torch.full_like(counts, len(labelled.x))
    if parents is not None:
        total = torch.where((parents >= 0).unsqueeze(1), sums[parents], total)
        rows = torch.where(parents >= 0, counts[parents], rows)
        sums, counts = sums_where_active(with_parents(labelled, parents))
    others = rows - counts
    difference = sums / counts.unsqueeze(1) - (total - sums) / others.unsqueeze(1)
    defined = (counts > 0) & (others > 0)
    return difference.masked_fill(~defined.unsqueeze(1), torch.nan).to(labelled.x.dtype)


def with_parents(labelled: Labelled, parents: Int[Tensor, " factors"]) -> Labelled:
    """Return the rows without the children that are active where their parents are not."""
    cells = labelled.rows * labelled.count + labelled.factors
    above = parents[labelled.factors]
    kept = (above < 0) | torch.isin(labelled.rows * labelled.count + above, cells)
    return Labelled(labelled.x, labelled.rows[kept], labelled.factors[kept], labelled.magnitudes[kept], labelled.count)


def sums_where_active(labelled: Labelled) -> tuple[Float[Tensor, "factors d_in"], Float[Tensor, " factors"]]:
    """Return the sum of the activations in which each factor is active, and how many those are."""
    from scipy.sparse import csr_array  # initialisations import this module, and few of them count

    places = (labelled.factors.numpy(), labelled.rows.numpy())
    active = csr_array((np.ones(len(labelled.rows)), places), shape=(labelled.count, len(labelled.x)))
    counts = torch.bincount(labelled.factors, minlength=labelled.count).double()
    return torch.from_numpy(active @ labelled.x.double().numpy()), counts


def logistic(labelled: Labelled, *, l2: float = 1.0) -> Probes:
    """Fit logistic probes of all factors. `l2`: weight of the squared norm against the loss summed over rows, as 1/C in
    scikit-learn.

    Factors that the common descent leaves unfinished (nearly separable ones) are finished by scikit-learn's Newton
    method, one at a time.
    """
    sums, counts = sums_where_active(labelled)
    varies = (counts > 0) & (counts < len(labelled.x))
    weights = torch.full_like(sums, torch.nan)
    bias = torch.full_like(counts, torch.nan)
    if bool(varies.any()):
        weights[varies], bias[varies], finished = _Fit(labelled.x, sums[varies], counts[varies], l2).solve()
        for factor in varies.nonzero().squeeze(1)[~finished].tolist():
            weights[factor], bias[factor] = newton(labelled, factor, l2)
    return Probes(weights.to(labelled.x.dtype), bias.to(labelled.x.dtype))


def newton(labelled: Labelled, factor: int, l2: float) -> tuple[Float[Tensor, " d_in"], float]:
    """Fit the probe of one factor, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    active = np.zeros(len(labelled.x), dtype=bool)
    active[labelled.rows[labelled.factors == factor].numpy()] = True
    fitted = LogisticRegression(C=1 / l2, solver="newton-cholesky").fit(labelled.x.double().numpy(), active)
    return torch.from_numpy(fitted.coef_[0]), float(fitted.intercept_[0])


class _Fit:
    """All factors' problems as one sum, in coordinates in which its Hessian starts as the identity.

    Those are the eigenvectors of the covariance, each scaled by its curvature at the start, where every row has the
    factor's own probability p: rows p (1 - p) variance + l2. The labels are needed only through `sums` and `counts`.
    """

    def __init__(self, x: Tensor, sums: Tensor, counts: Tensor, l2: float):
        exact = x.double()
        self.mean = exact.mean(0)
        centred = exact - self.mean
        self.x, self.l2 = centred.to(x.dtype), l2
        self.sums, self.counts = sums - counts.unsqueeze(1) * self.mean, counts
        variances, self.axes = torch.linalg.eigh(centred.T @ centred / len(x))
        p = counts / len(x)
        curvature = len(x) * p * (1 - p)
        self.scale = (curvature.unsqueeze(1) * variances.clamp_min(0) + l2).rsqrt()
        self.bias_scale = curvature.rsqrt()
        self.start = torch.logit(p)

    def solve(self) -> tuple[Float[Tensor, "factors d_in"], Float[Tensor, " factors"], Bool[Tensor, " factors"]]:
        """Return weights, biases, and which factors have converged."""
        free = torch.zeros(len(self.counts), self.x.shape[1] + 1, dtype=torch.float64)
        optimiser = torch.optim.LBFGS(
            [free], max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-2, tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> float:
            loss, free.grad = self.loss(free)
            return loss

        optimiser.step(closure)  # pyright: ignore[reportArgumentType]
        closure()
        assert free.grad is not None
        weights, bias = self.parameters(free)
        return weights, bias - weights @ self.mean, free.grad.abs().amax(1) <= STEEPEST

    def parameters(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights, and the bias for centred rows."""
        return (free[:, :-1] * self.scale) @ self.axes.T, self.start + free[:, -1] * self.bias_scale

    def loss(self, free: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient."""
        weights, bias = self.parameters(free)
        loss = 0.5 * self.l2 * weights.square().sum() - (weights * self.sums).sum() - bias @ self.counts
        d_weights, d_bias = self.l2 * weights - self.sums, -self.counts
        for rows in self.x.split(max(1, CHUNK_ENTRIES // len(bias))):
            # Within a chunk in the rows' own precision, across chunks in float64.
            logits = torch.addmm(bias.to(rows), rows, weights.T.to(rows))
            loss = loss + softplus(logits).sum(0).double().sum()
            probability = logits.sigmoid_()
            d_weights = d_weights + probability.T @ rows
            d_bias = d_bias + probability.sum(0)
        return float(loss), torch.cat(
            [(d_weights @ self.axes) * self.scale, (d_bias * self.bias_scale).unsqueeze(1)], 1
        )
