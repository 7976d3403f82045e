"""Means, paired differences and what may be said of them, by scipy and statsmodels.

interval     mean +- t(0.975, n - 1) sd / sqrt(n)
better       two-sided paired t-test of a mean of 0
material     one-sided paired t-test of a mean of at most the smallest effect of interest, counted twice
equivalent   two one-sided tests (Schuirmann 1987): the 90 % interval lies inside +- the smallest effect
permutation  all flips of the signs of the differences (scipy: all of them up to 2^13, else a random sample)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
"""Confidence level of intervals; tests are made at 1 - LEVEL."""
FEWEST_SEEDS = 3
"""Least number of seeds for an interval or a claim."""
FLIPS = 8192
"""Largest number of flips of signs that a permutation test tries."""


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    half: float
    """Half-width; NaN below FEWEST_SEEDS."""
    n: int


class Paired(NamedTuple):
    """Paired differences of one sign convention, positive where the first side is better, and their tests."""

    mean: float
    sd: float
    """Standard deviation over seeds; NaN below FEWEST_SEEDS, as are all the following."""
    half: float
    """Half-width of the 95 % interval."""
    p: float
    """Two-sided p-value of a mean of 0."""
    n: int


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean of the finite values and the half-width of its interval."""
    finite = [v for v in values if math.isfinite(v)]
    n = len(finite)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = math.fsum(finite) / n
    if n < FEWEST_SEEDS:
        return Interval(mean, math.nan, n)
    return Interval(mean, t_quantile(n - 1) * standard_error(finite), n)


def paired(differences: Sequence[float]) -> Paired:
    """Return mean, spread, interval and p-value of paired differences."""
    n = len(differences)
    if n < FEWEST_SEEDS:
        return Paired(math.fsum(differences) / n if n else math.nan, math.nan, math.nan, math.nan, n)
    return _paired(tuple(differences))


def paired_by_seed(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """Return a - b over the seeds at which both are finite."""
    a, b = finite_only(a), finite_only(b)
    return paired([a[seed] - b[seed] for seed in sorted(set(a) & set(b))])


@lru_cache(maxsize=65_536)
def _paired(values: tuple[float, ...]) -> Paired:
    n, mean = len(values), math.fsum(values) / len(values)
    sd = float(np.std(values, ddof=1))
    if degenerate(values):
        return Paired(mean, 0.0, 0.0, 0.0 if abs(mean) > 0 else 1.0, n)
    return Paired(mean, sd, t_quantile(n - 1) * sd / math.sqrt(n), one_sample(values, 0.0, "two-sided"), n)


def p_above(differences: Sequence[float], bound: float) -> float:
    """Return the one-sided p-value of "the mean is at most `bound`"; NaN below FEWEST_SEEDS."""
    return side(differences, bound, "greater")


def p_below(differences: Sequence[float], bound: float) -> float:
    """Return the one-sided p-value of "the mean is at least `bound`"; NaN below FEWEST_SEEDS."""
    return side(differences, bound, "less")


def side(differences: Sequence[float], bound: float, alternative: str) -> float:
    """Return a one-sided p-value; of differences without any spread, 0 or 1."""
    if len(differences) < FEWEST_SEEDS or not math.isfinite(bound):
        return math.nan
    if degenerate(differences):
        beyond = differences[0] > bound if alternative == "greater" else differences[0] < bound
        return 0.0 if beyond else 1.0
    return one_sample(tuple(differences), bound, alternative)


@lru_cache(maxsize=65_536)
def p_equivalent(differences: tuple[float, ...], smallest: float) -> float:
    """Return the p-value of two one-sided tests that the mean lies inside +- `smallest`; NaN below FEWEST_SEEDS."""
    if len(differences) < FEWEST_SEEDS or not (math.isfinite(smallest) and smallest > 0):
        return math.nan
    if degenerate(differences):
        return 0.0 if abs(differences[0]) < smallest else 1.0
    from statsmodels.stats.weightstats import ttost_paired

    values = np.array(differences)
    p, _, _ = ttost_paired(values, np.zeros_like(values), -smallest, smallest)
    return float(p)


def p_flipped(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the sign-flip permutation test of a mean of 0; NaN below FEWEST_SEEDS.

    It assumes symmetry about 0 and nothing else. With n seeds it cannot fall below 2^(1 - n).
    """
    if len(differences) < FEWEST_SEEDS:
        return math.nan
    from scipy import stats

    # All 2^n flips where they are few, else a sample, drawn the same each time so that a report can be made again.
    found = stats.permutation_test(
        (np.array(differences),), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples",
        n_resamples=FLIPS, vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


@lru_cache(maxsize=65_536)
def one_sample(values: tuple[float, ...], mean: float, alternative: str) -> float:
    """Return the p-value of a t-test of paired differences against a mean."""
    from scipy.special import stdtr

    # scipy.stats.ttest_1samp spends a hundred times as long on the shapes of its arguments as on this.
    df, t = len(values) - 1, (math.fsum(values) / len(values) - mean) / standard_error(values)
    if alternative == "two-sided":
        return float(2 * stdtr(df, -abs(t)))
    return float(stdtr(df, -t if alternative == "greater" else t))


def degenerate(values: Sequence[float]) -> bool:
    """Tell whether values differ by rounding alone: differences of equal numbers leave 1e-17."""
    return max(values) - min(values) <= 1e-12 * max(1e-300, *map(abs, values))


@lru_cache(maxsize=1024)
def t_quantile(df: int, share: float = 0.5 + LEVEL / 2) -> float:
    """Return the quantile of Student's t with which a mean's standard error gives its half-width."""
    from scipy import stats

    return float(stats.t.ppf(share, df))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def finite_only(values: Mapping[int, float]) -> dict[int, float]:
    """Return the finite values by seed."""
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of a family adjusted by Holm's method; NaN stays NaN and counts in no family.

    As statsmodels' multipletests, which collects garbage at every call: half a second in a process that has torch.
    """
    return adjusted(p_values, step_down)


def step_down(p_values: np.ndarray) -> np.ndarray:
    """Return all known p-values of a family adjusted by Holm's method."""
    order = np.argsort(p_values, kind="stable")
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1.0)
    return found


def q_values(p_values: Sequence[float]) -> list[float]:
    """Return the q-values of a family (Benjamini and Hochberg 1995); NaN stays NaN and counts in no family."""
    from scipy.stats import false_discovery_control

    return adjusted(p_values, false_discovery_control)


def adjusted(p_values: Sequence[float], adjust: Callable[[np.ndarray], Any]) -> list[float]:
    """Return the p-values with those that are known adjusted as one family."""
    known = [i for i, p in enumerate(p_values) if math.isfinite(p)]
    found = [math.nan] * len(p_values)
    if known:
        for i, p in zip(known, adjust(np.array([p_values[i] for i in known])), strict=True):
            found[i] = float(p)
    return found
