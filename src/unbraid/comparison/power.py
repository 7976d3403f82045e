"""Power of paired comparisons: the smallest difference that is found, and the number of seeds that one needs.

By statsmodels' noncentral t. Equivalence has no function there: its power is integrated over the distribution of the
standard deviation (Phillips 1990).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from unbraid.comparison.intervals import FEWEST_SEEDS, LEVEL, t_quantile
from unbraid.comparison.wording import number, plural

POWER = 0.8
"""The power at which a difference counts as one that could have been found."""
MOST_SEEDS = 1000
POINTS = 400
"""Points of the integral over the standard deviation."""


@dataclass(frozen=True)
class Power:
    """The power of a study by one primary."""

    score: str
    smallest: float
    sd: float
    """Standard deviation over calibration seeds of a term's difference from its base, pooled over terms."""
    seeds: int
    family: int
    """Comparisons corrected for: terms x primaries."""
    to_find: float
    """Probability of finding a difference of the smallest effect, at the level of the family's hardest test."""
    of_equivalence: float
    """Probability of calling equal methods equivalent."""
    could_find: float
    """The difference that is found with a probability of POWER."""
    needed: int | None
    """Seeds that the smallest effect needs; None above a thousand."""
    needed_for_equivalence: int | None

    @property
    def sentence(self) -> str:
        """The power in a sentence."""
        needed = "more than a thousand are" if self.needed is None else f"{plural(self.needed, 'seed')} are"
        return (
            f"{self.score}: {plural(self.seeds, 'seed')} find a difference of {number(self.smallest)} with "
            f"probability {self.to_find:.0%}, and one of {number(self.could_find)} with {POWER:.0%}; {needed} needed "
            f"for {number(self.smallest)} with {POWER:.0%}; two equal methods are called equivalent with "
            f"{self.of_equivalence:.0%}"
        )


def detectable(sd: float, n: int, alpha: float = 1 - LEVEL, power: float = POWER) -> float:
    """Return the smallest mean of paired differences that a two-sided t-test finds with this power.

    sd: standard deviation of the differences over seeds. NaN below FEWEST_SEEDS or without a spread.
    """
    if n < FEWEST_SEEDS or not math.isfinite(sd):
        return math.nan
    return sd * effect_found(n, alpha, power)


@lru_cache(maxsize=4096)
def effect_found(n: int, alpha: float, power: float) -> float:
    """Return the smallest mean, in standard deviations of the differences, that is found with this power."""
    from scipy import optimize

    root: Any = optimize.brentq(lambda d: power_to_find(d, 1.0, n, alpha) - power, 1e-6, 1e4, xtol=1e-6)
    return float(root)


def power_to_find(effect: float, sd: float, n: int, alpha: float = 1 - LEVEL) -> float:
    """Return the probability that a two-sided paired t-test finds a mean difference of this size, in its direction."""
    if sd == 0:
        return float(effect != 0)
    from scipy import stats

    noncentral, limit = abs(effect) / sd * math.sqrt(n), t_quantile(n - 1, 1 - alpha / 2)
    found: Any = stats.nct.sf(limit, n - 1, noncentral)
    # Far in the tail scipy's series gives NaN, where the normal approximation is exact to every digit shown.
    return float(found) if math.isfinite(found) else float(stats.norm.sf(limit - noncentral))


def power_of_equivalence(smallest: float, sd: float, n: int, mean: float = 0.0, alpha: float = 1 - LEVEL) -> float:
    """Return the probability that two one-sided tests call a true difference `mean` smaller than `smallest`."""
    if sd == 0:
        return float(abs(mean) < smallest)
    from scipy import stats

    shares = (np.arange(POINTS) + 0.5) / POINTS
    spread = sd * np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))
    room = smallest - t_quantile(n - 1, 1 - alpha) * spread / math.sqrt(n)
    error = sd / math.sqrt(n)
    inside = stats.norm.cdf((room - mean) / error) - stats.norm.cdf((-room - mean) / error)
    return float(np.where(room > 0, inside, 0.0).mean())


def pooled(spreads: Iterable[float]) -> float:
    """Return the standard deviation that several have in common, each of as many seeds; NaN when none is known."""
    known = [sd for sd in spreads if math.isfinite(sd)]
    return math.sqrt(math.fsum(sd * sd for sd in known) / len(known)) if known else math.nan


def seeds_needed(effect: float, sd: float, alpha: float = 1 - LEVEL, power: float = POWER) -> int | None:
    """Return the fewest seeds with which a mean difference is found; None above MOST_SEEDS."""
    return fewest(lambda n: power_to_find(effect, sd, n, alpha) >= power)


def seeds_for_equivalence(smallest: float, sd: float, power: float = POWER) -> int | None:
    """Return the fewest seeds with which two equal methods are called equivalent; None above MOST_SEEDS."""
    return fewest(lambda n: power_of_equivalence(smallest, sd, n) >= power)


def fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds that is enough, by bisection: more seeds never have less power."""
    low, high = FEWEST_SEEDS, MOST_SEEDS
    if enough(low):
        return low
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
