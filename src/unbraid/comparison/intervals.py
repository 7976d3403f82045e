"""Means, differences and their 95 % t-intervals over seeds, by scipy.

    mean +- t(0.975, n - 1) * sd / sqrt(n)

Differences are paired by seed when both sides have the same seeds, else the interval is Welch's.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
"""Confidence level of intervals; tests are made at 1 - LEVEL."""
FEWEST_SEEDS = 3
"""Least number of seeds for an interval or a claim."""


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    half: float
    """Half-width; NaN below FEWEST_SEEDS."""
    n: int


class Difference(NamedTuple):
    """A difference of means with its confidence interval and two-sided p-value."""

    mean: float
    half: float
    """Half-width; NaN below FEWEST_SEEDS."""
    p: float
    n: int
    """Number of seeds on the side that has fewer."""
    paired: bool


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


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Return the mean of a - b over seeds, from values by seed; NaN values count as absent."""
    a, b = finite_only(a), finite_only(b)
    if not a or not b:
        return Difference(math.nan, math.nan, math.nan, 0, False)
    paired = set(a) == set(b)
    first, second = ((tuple(side[seed] for seed in sorted(side))) for side in (a, b))
    deltas = [x - y for x, y in zip(first, second, strict=True)] if paired else []
    mean = (
        math.fsum(deltas) / len(deltas) if paired else math.fsum(first) / len(first) - math.fsum(second) / len(second)
    )
    n = min(len(first), len(second))
    if n < FEWEST_SEEDS:
        return Difference(mean, math.nan, math.nan, n, paired)
    error = standard_error(deltas) if paired else math.hypot(standard_error(first), standard_error(second))
    # Rounding leaves differences of equal numbers at 1e-17; such a spread or shift counts as 0.
    nothing = 1e-12 * max(map(abs, (*first, *second)))
    if error <= nothing:
        return Difference(mean, 0.0, float(abs(mean) <= nothing), n, paired)
    return Difference(mean, *t_test(first, second, paired), n, paired)


@lru_cache(maxsize=65_536)
def t_test(a: tuple[float, ...], b: tuple[float, ...], paired: bool) -> tuple[float, float]:
    """Return the half-width and the p-value of a paired t-test, or of Welch's. Cached: reports repeat comparisons."""
    from scipy import stats

    found: Any = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(LEVEL)
    _, p = found
    return float(high - low) / 2, float(p)


@lru_cache(maxsize=1024)
def t_quantile(df: int) -> float:
    """Return the quantile of Student's t with which a mean's standard error gives its half-width."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + LEVEL / 2, df))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def finite_only(values: Mapping[int, float]) -> dict[int, float]:
    """Return the finite values by seed."""
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return which tests of a family are significant at 1 - LEVEL after Holm's correction."""
    # statsmodels' multipletests gives the same, which a test holds, but collects garbage at every call: 50 ms and more.
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    significant = [False] * len(p_values)
    for rank, i in enumerate(order):
        if not p_values[i] <= (1 - LEVEL) / (len(p_values) - rank):
            break
        significant[i] = True
    return significant
