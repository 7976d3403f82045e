"""Means, differences and their 95 % t-intervals over seeds.

    mean +- t(0.975, n - 1) * sd / sqrt(n)

Differences are paired by seed when both sides have the same seeds, else the interval is Welch's.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95
FEWEST_SEEDS = 3
"""Below this there is no interval and no claim."""


class Interval(NamedTuple):
    mean: float
    half: float
    """Half-width; NaN below FEWEST_SEEDS."""
    n: int


class Difference(NamedTuple):
    mean: float
    half: float
    """Half-width; NaN below FEWEST_SEEDS."""
    p: float
    n: int
    """Seeds on the side that has fewer."""
    paired: bool


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of the finite values and half-width of its interval."""
    finite = [v for v in values if math.isfinite(v)]
    n = len(finite)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = math.fsum(finite) / n
    if n < FEWEST_SEEDS:
        return Interval(mean, math.nan, n)
    return Interval(mean, t_quantile(float(n - 1)) * math.sqrt(variance(finite) / n), n)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Mean of a - b over seeds, from values by seed; NaN values count as absent."""
    a, b = finite_only(a), finite_only(b)
    if not a or not b:
        return Difference(math.nan, math.nan, math.nan, 0, False)
    if set(a) == set(b):
        deltas = [a[seed] - b[seed] for seed in sorted(a)]
        n, df, paired = len(deltas), len(deltas) - 1.0, True
        mean, squared = math.fsum(deltas) / n, variance(deltas) / n
    else:
        mean = math.fsum(a.values()) / len(a) - math.fsum(b.values()) / len(b)
        va, vb = variance(list(a.values())) / len(a), variance(list(b.values())) / len(b)
        squared, n, df, paired = va + vb, min(len(a), len(b)), welch_df(va, len(a), vb, len(b)), False
    if n < FEWEST_SEEDS:
        return Difference(mean, math.nan, math.nan, n, paired)
    error = math.sqrt(squared)
    # Rounding leaves differences of equal numbers at 1e-17; such a spread or shift is none.
    nothing = 1e-12 * max(map(abs, (*a.values(), *b.values())))
    if error <= nothing:
        return Difference(mean, 0.0, float(abs(mean) <= nothing), n, paired)
    return Difference(mean, t_quantile(df) * error, float(2 * stats.t.sf(abs(mean) / error, df)), n, paired)


def welch_df(va: float, na: int, vb: float, nb: int) -> float:
    """Welch-Satterthwaite degrees of freedom from squared standard errors."""
    if min(na, nb) < 2 or va + vb == 0:
        return float(max(1, na + nb - 2))
    return (va + vb) ** 2 / (va**2 / (na - 1) + vb**2 / (nb - 1))


@lru_cache(maxsize=1024)
def t_quantile(df: float) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, df))


def variance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def finite_only(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which tests of a family are significant at 1 - LEVEL after Holm's correction."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    significant = [False] * len(p_values)
    for rank, i in enumerate(order):
        if not p_values[i] <= (1 - LEVEL) / (len(p_values) - rank):
            break
        significant[i] = True
    return significant
