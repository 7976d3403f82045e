"""The contrast of two methods by one score: the mean difference over levels of L0, paired by seed.

    D_k = mean over levels of (y[own, level, k] - y[other, level, k])

A level is a sparsity at which the other method was measured; both methods' curves of a seed are read there, between
measured points and never beyond them (by TOLERANCE at most). Levels and seeds are those that form a complete table, so
that no level weighs more in one seed than in another. On worlds a seed may have drawn the world too.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from unbraid.comparison.curves import Curve, clusters, interpolate, nearest
from unbraid.comparison.intervals import FEWEST_SEEDS, Paired, p_above, p_below, p_equivalent, p_flipped, paired
from unbraid.comparison.quantities import AXES, Quantity
from unbraid.comparison.scores import Method, Scores, values_by_seed
from unbraid.comparison.wording import number, plural

MOST_LEVELS = 8
"""Number of levels up to which every choice of levels is tried for the largest complete table."""


@dataclass(frozen=True)
class Contrast:
    """The difference of two methods by one score, by seed."""

    metric: Quantity
    axis: str
    """What is held equal: L0, FVU or bits."""
    method: str
    other: str
    levels: tuple[float, ...] = ()
    own_by_seed: Mapping[int, float] = field(default_factory=dict)
    """The method's score by seed, averaged over levels."""
    other_by_seed: Mapping[int, float] = field(default_factory=dict)
    note: str = ""
    """Why nothing could be compared, or what was left out."""

    @property
    def value(self) -> float:
        """The method's score, averaged over levels and seeds; NaN when nothing was compared."""
        return mean_of(self.own_by_seed)

    @property
    def other_value(self) -> float:
        """The other's score, averaged over levels and seeds."""
        return mean_of(self.other_by_seed)

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """The differences by seed, positive where the method is better; of a score without a direction, raw."""
        sign = self.metric.sign or 1
        return tuple(sign * (value - self.other_by_seed[seed]) for seed, value in sorted(self.own_by_seed.items()))

    @cached_property
    def tested(self) -> Paired:
        """The gain's mean, spread, interval and two-sided p-value."""
        return paired(self.gains)

    @property
    def gain(self) -> float:
        """Mean difference, positive where the method is better; NaN when nothing was compared."""
        return self.tested.mean

    @property
    def n(self) -> int:
        """Number of paired seeds."""
        return len(self.gains)

    @property
    def difference(self) -> float:
        """Mean difference in the score's own direction."""
        return (self.metric.sign or 1) * self.gain

    @property
    def enough(self) -> bool:
        """True if there are seeds enough for an interval."""
        return self.n >= FEWEST_SEEDS

    def p_material(self, smallest: float) -> float:
        """Two-sided p-value of "the gain is at most `smallest`": twice the one-sided one, as intervals have it."""
        return min(1.0, 2 * p) if math.isfinite(p := p_above(self.gains, smallest)) else math.nan

    def p_material_loss(self, smallest: float) -> float:
        """Two-sided p-value of "the loss is at most `smallest`"."""
        return min(1.0, 2 * p) if math.isfinite(p := p_below(self.gains, -smallest)) else math.nan

    def p_equivalent(self, smallest: float) -> float:
        """p-value of "the difference is `smallest` or more, either way"."""
        return p_equivalent(self.gains, smallest)

    def p_flipped(self) -> float:
        """p-value of the sign-flip permutation test of no difference."""
        return p_flipped(self.gains)

    def p_ahead(self) -> float:
        """One-sided p-value of "the method is not better"."""
        return p_above(self.gains, 0.0)


def contrast(scores: Scores, own: Method, other: Method, metric: Quantity, axis: str = "L0") -> Contrast:
    """Compare two methods by one score at the levels at which the other was measured."""
    key = ("contrast", own.name, other.name, metric, axis)
    return scores.cached(key, lambda: _contrast(scores, own, other, metric, axis))


def _contrast(scores: Scores, own: Method, other: Method, metric: Quantity, axis: str) -> Contrast:
    empty = lambda why: Contrast(metric, axis, own.short, other.short, note=why)
    x = scores.find(dict(AXES)[axis])
    if x is None:
        return empty(f"no run has a score of {axis}")
    if axis == "L0" and unrequested(own) and unrequested(other):
        return unmatched(scores, own, other, metric, x)
    ours, theirs = scores.curves(own, x, metric), scores.curves(other, x, metric)
    if not (set(ours) & set(theirs)):
        return empty(f"{own.short} and {other.short} have no seed in common with {metric.name} and {axis}")
    wanted = levels_of(scores, other, x)
    table = readings(ours, theirs, wanted)
    levels, seeds = complete(table)
    if not seeds:
        return empty(f"{reach(ours, axis)}; {other.short}'s {reach(theirs, axis)}, and nothing is extrapolated")
    count = len(levels)
    own_side, other_side = (
        {seed: math.fsum(table[level][seed][side] for level in levels) / count for seed in seeds} for side in (0, 1)
    )
    left = [level for level in wanted if level not in levels]
    note = f"left out: {axis} {', '.join(number(level) for level in left)}" if left else ""
    if lost := (set(ours) & set(theirs)) - set(seeds):
        note = "; ".join(filter(None, (note, f"{plural(len(lost), 'seed')} without all levels left out")))
    return Contrast(metric, axis, own.short, other.short, tuple(levels), own_side, other_side, note)


def unrequested(method: Method) -> bool:
    """True for a method of which no sparsity was requested: its penalty's weight is what is held equal."""
    return all(math.isnan(run.requested_l0) for run in method.runs)


def unmatched(scores: Scores, own: Method, other: Method, metric: Quantity, l0: Quantity) -> Contrast:
    """Compare two methods of which no sparsity was requested, as they are, and say what L0 each came to."""
    ours, theirs = values_by_seed(scores, own, metric), values_by_seed(scores, other, metric)
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        why = f"{own.short} and {other.short} have no seed in common with {metric.name}"
        return Contrast(metric, "L0", own.short, other.short, note=why)
    reached = [number(mean_of(values_by_seed(scores, m, l0))) for m in (own, other)]
    note = f"no L0 was requested, and none is matched: {reached[0]} and {reached[1]}"
    ours, theirs = ({seed: side[seed] for seed in seeds} for side in (ours, theirs))
    return Contrast(metric, "L0", own.short, other.short, (), ours, theirs, note)


def against_constant(scores: Scores, own: Method, level: Mapping[int, float], name: str, metric: Quantity) -> Contrast:
    """Compare a method, averaged over its settings, with one value a seed (a ceiling, or chance); seeds without a
    value of their own are compared with the mean of the others."""
    ours = values_by_seed(scores, own, metric)
    known = [value for value in level.values() if math.isfinite(value)]
    if not ours or not known:
        return Contrast(metric, "L0", own.short, name, note=f"no {metric.name} on one side")
    mean = math.fsum(known) / len(known)
    against = {seed: value if math.isfinite(value := level.get(seed, mean)) else mean for seed in ours}
    return Contrast(metric, "L0", own.short, name, (), ours, against)


def mean_of(by_seed: Mapping[int, float]) -> float:
    """The mean over seeds; NaN of none."""
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else math.nan


def levels_of(scores: Scores, method: Method, x: Quantity) -> list[float]:
    """The levels of an axis at which a method was measured: the mean of each of its settings."""
    found = []
    for runs in method.settings.values():
        known = [v for run in runs if math.isfinite(v := scores.value(run, x)) and v > 0]
        if known:
            found.append(math.fsum(known) / len(known))
    return clusters(found)


def readings(
    ours: Mapping[int, Curve], theirs: Mapping[int, Curve], levels: Sequence[float]
) -> dict[float, dict[int, tuple[float, float]]]:
    """Both sides' values by level and seed, where both can be read."""
    table: dict[float, dict[int, tuple[float, float]]] = {}
    for level in levels:
        for seed in sorted(set(ours) & set(theirs)):
            pair = read(ours[seed], level), read(theirs[seed], level)
            if all(map(math.isfinite, pair)):
                table.setdefault(level, {})[seed] = pair
    return table


def read(curve: Curve, x: float) -> float:
    """Read a curve at x between its measured points, or at a measured point within TOLERANCE; NaN elsewhere."""
    if not curve:
        return math.nan
    if curve[0][0] <= x <= curve[-1][0]:
        y = interpolate(curve, x)
        low, high = nearest_gap(curve, x)
        if math.isfinite(y) and high / low <= MOST_GAP:
            return y
    found = nearest(curve, x)
    return math.nan if found is None else found[1]


MOST_GAP = 4.0
"""Largest ratio of two neighbouring measured points between which a curve is read."""


def nearest_gap(curve: Curve, x: float) -> tuple[float, float]:
    """The measured points on both sides of x."""
    low = max(point[0] for point in curve if point[0] <= x)
    return low, min(point[0] for point in curve if point[0] >= x)


def complete(table: Mapping[float, Mapping[int, tuple[float, float]]]) -> tuple[list[float], list[int]]:
    """The levels and seeds of the largest complete table: enough seeds for an interval first, then most cells."""
    levels = sorted(table)
    if len(levels) > MOST_LEVELS:
        most = max(len(table[level]) for level in levels)
        levels = [level for level in levels if len(table[level]) == most]
        choices = [tuple(levels)]
    else:
        choices = [c for size in range(len(levels), 0, -1) for c in itertools.combinations(levels, size)]
    best: tuple[list[float], list[int]] = ([], [])
    for chosen in choices:
        seeds = sorted(set.intersection(*(set(table[level]) for level in chosen)))
        worth = lambda ls, ss: (len(ss) >= FEWEST_SEEDS, len(ls) * len(ss), len(ss))
        if worth(chosen, seeds) > worth(*best):
            best = list(chosen), seeds
    return best


def reach(curves: Mapping[int, Curve], axis: str) -> str:
    """Describe the range of x that a method covers."""
    xs = [x for curve in curves.values() for x, _ in curve]
    if not xs:
        return f"it has no {axis} scores"
    low, high = min(xs), max(xs)
    return f"{axis} is {low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{axis} covers {low:.3g} to {high:.3g}"
