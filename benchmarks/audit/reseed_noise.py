"""First lens: how far a score moves when nothing but chance is another, and the seeds that a difference takes.

A draw is a source and a seed. Draws of one source share it, so their spread alone would leave out the source's; the
variance of a draw that brings a source of its own is

    var = MSW + (MSB - MSW) / n       MSB, MSW: mean squares between and within sources, n draws of each
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.audit.panel import Case
from benchmarks.audit.rows import Rows
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.power import pooled, seeds_needed

BASE = "batchtopk"
"""The method that others are compared with, draw by draw."""
DIFFERENCE = 0.02
"""The difference to be found: of scores that are no shares, as a share of their mean."""
SHARES_END = 1.0
"""The largest |value| of a score that is a share."""
Draw = tuple[int, int]


class Noise(NamedTuple):
    """The noise of one score."""

    mean: float
    """Over methods and draws."""
    of_method: float
    """Standard deviation of one method's score over draws, pooled over methods."""
    of_difference: float
    """Standard deviation over draws of a method's difference from the base, pooled over methods."""
    of_eval: float
    """Standard deviation of one dictionary's score over other draws of the eval; NaN where there are none."""
    difference: float
    """The difference to be found, in the score's own units."""
    seeds: int | None
    """Seeds that find it with 80 % by a paired t-test at 5 %; None for more than a thousand."""


def noise(rows: Rows, score: str) -> Noise:
    """Work out the noise of a score from the methods trained alike on every draw."""
    by_method = values_by_method(rows, score)
    bases = next((values for name, values in by_method.items() if name.startswith(f"{BASE}-")), {})
    others = [values for values in by_method.values() if values is not bases]
    apart = [{draw: v - bases[draw] for draw, v in values.items() if draw in bases} for values in others]
    known = [v for values in by_method.values() for v in values.values() if math.isfinite(v)]
    mean = float(np.mean(known)) if known else math.nan
    of_difference = pooled(map(spread, apart))
    share = bool(known) and max(map(abs, known)) <= SHARES_END
    difference = DIFFERENCE if share else DIFFERENCE * abs(mean)
    seeds = seeds_needed(difference, of_difference) if of_difference > 0 else None
    return Noise(mean, pooled(map(spread, by_method.values())), of_difference, of_eval(rows, score), difference, seeds)


def values_by_method(rows: Rows, score: str) -> dict[str, dict[Draw, float]]:
    """Return a score's values by method and draw."""
    found: dict[str, dict[Draw, float]] = {}
    for case, own in rows.scores.items():
        if case.kind == "equal":
            found.setdefault(case.name, {})[case.source, case.seed] = own.get(score, math.nan)
    return found


def spread(values: Mapping[Draw, float]) -> float:
    """Return the standard deviation of one draw; NaN below FEWEST_SEEDS."""
    groups: dict[int, list[float]] = {}
    for (source, _), value in values.items():
        if math.isfinite(value):
            groups.setdefault(source, []).append(value)
    total = sum(map(len, groups.values()))
    if total < FEWEST_SEEDS:
        return math.nan
    if len(groups) == 1:
        return float(np.std(next(iter(groups.values())), ddof=1))
    return math.sqrt(max(0.0, variance_of_a_draw(list(groups.values()))))


def variance_of_a_draw(groups: Sequence[Sequence[float]]) -> float:
    """Return the variance between sources plus that within them, from an analysis of variance.

    Groups of unequal size count with the size that makes the estimate unbiased.
    """
    sizes = [len(group) for group in groups]
    total, grand = sum(sizes), float(np.mean(np.concatenate([np.asarray(g) for g in groups])))
    between = sum(n * (float(np.mean(g)) - grand) ** 2 for n, g in zip(sizes, groups, strict=True)) / (len(groups) - 1)
    if total == len(groups):
        return between
    within = sum(float(np.sum((np.asarray(g) - np.mean(g)) ** 2)) for g in groups) / (total - len(groups))
    size = (total - sum(n * n for n in sizes) / total) / (len(groups) - 1)
    return within + (between - within) / size


def of_eval(rows: Rows, score: str) -> float:
    """Return the standard deviation of one dictionary's score over draws of the eval, pooled over dictionaries."""
    found: dict[str, list[float]] = {}
    for case, own in rows.scores.items():
        if case.kind == "redrawn" and math.isfinite(value := own.get(score, math.nan)):
            first = rows.scores.get(Case("equal", case.name, case.source, case.seed), {}).get(score, math.nan)
            found.setdefault(case.name, [first] if math.isfinite(first) else []).append(value)
    return pooled(float(np.std(values, ddof=1)) for values in found.values() if len(values) > 1)
