"""Guards: what a gain must not have been bought with, as tests of non-inferiority, the same for both sides.

A side that is ahead must be shown to keep
    95 % of the other's |x_hat| / |x|       reconstructions did not shrink
    90 % of its recall of rare factors      rare factors were not given up (or all but .02 of it, where that is less)
(a value of the other above 1 counts as 1), and, of absorption, its recall of parents next to their children (thresholds
on cosines can be met by turning atoms, without finding a parent), of additivity, interaction and overlap, 95 % of the
size of effects. A guard is kept when the lower end of the 90 % interval of own - share x other is above 0, broken when
the upper end is below, else not shown. The number of living latents is no guard: fewer and better latents may be what a
claim is about, and what deletion costs is the recall of rare factors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unbraid.comparison.contrast import contrast
from unbraid.comparison.intervals import LEVEL, p_above, p_below
from unbraid.comparison.judgement import DIFFERENT, GAINS, Judgement
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores
from unbraid.comparison.wording import number

Outcome = Literal["kept", "broken", "not shown", "not measured"]


@dataclass(frozen=True)
class Guard:
    """A condition on a side that is ahead: it keeps a share of the other side's value of a metric."""

    metric: str
    keeps: float
    """Share of the other side's value that must be kept."""
    says: str
    enough: float = 1.0
    """A value of the other side above this counts as this."""
    least: float = 0.0
    """A loss below this is none: where the value itself is near 0, a share of it is within its noise."""

    def bound(self, other: float) -> float:
        """The value that must be kept, by the other side's."""
        counted = min(self.enough, other)
        return min(self.keeps * counted, counted - self.least)


GUARDS = (
    Guard("l2_ratio", 0.95, "reconstructions shrank: |x_hat| / |x|"),
    Guard("recall_by_frequency", 0.9, "rare factors were given up: recall of the rarest", least=0.02),
)
PARENTS = Guard("parent_recall_given_child", 1.0, "parents are found less often: their recall next to a child")
EFFECT = Guard("effect", 0.95, "effects shrank: their size, in that of random directions,", math.inf)
ADDED = ("additive_r2", "interaction", "overlap")
"""Metrics at which atoms without any effect downstream are best."""
ABSORPTION = ("absorption_full", "absorption_fractional", "probe_absorption_full", "probe_absorption_fraction")


@dataclass(frozen=True)
class GuardCheck:
    """The outcome of one guard for one side."""

    guard: Guard
    outcome: Outcome
    own: float
    other: float

    @property
    def sentence(self) -> str:
        """The finding of the guard, with the values of both sides."""
        return f"{self.guard.says} {number(self.own)} against {number(self.other)}"

    @property
    def values(self) -> str:
        """The measure of the guard, with the values of both sides."""
        return f"{self.guard.says.partition(': ')[2]} {number(self.own)} against {number(self.other)}"


def guarded(scores: Scores, found: Sequence[Judgement], methods: Mapping[str, Method]) -> list[Judgement]:
    """Check the guards of the side that is ahead: one that is broken voids the word, one not shown to be kept is
    noted, and what it is noted of decides no claim."""
    return [guarded_one(scores, j, methods) for j in found]


def guarded_one(scores: Scores, found: Judgement, methods: Mapping[str, Method]) -> Judgement:
    """Check the guards of one judgement for the side that is ahead."""
    if found.word not in DIFFERENT:
        return found
    own, other = methods[found.contrast.method], methods[found.contrast.other]
    ahead, behind = (own, other) if found.word in GAINS else (other, own)
    checks = checked(scores, ahead, behind, found.metric)
    if broken := [c for c in checks if c.outcome == "broken"]:
        return replace(
            found, word="void", reason=f"{found.word}, but {ahead.short} broke a guard: {broken[0].sentence}"
        )
    if unsure := [c for c in checks if c.outcome == "not shown"]:
        return replace(found, doubt=f"{ahead.short} is not shown to keep a guard: {unsure[0].values}")
    return found


def checked(scores: Scores, own: Method, other: Method, metric: Quantity) -> list[GuardCheck]:
    """Check all guards that apply to a score, for one side against the other; those that were measured."""
    guards = [*GUARDS]
    if metric.metric in ABSORPTION:
        guards.append(PARENTS)
    if metric.metric in ADDED:
        guards.append(EFFECT)
    found = []
    for guard in guards:
        quantity = guard_quantity(scores, guard)
        if quantity is not None and quantity != metric:
            found.append(check(scores, guard, quantity, own, other))
    return [c for c in found if c.outcome != "not measured"]


def check(scores: Scores, guard: Guard, quantity: Quantity, own: Method, other: Method) -> GuardCheck:
    """Test one guard, paired by seed over the levels that both have."""
    key = ("guard", guard.metric, own.name, other.name)
    return scores.cached(key, lambda: _check(scores, guard, quantity, own, other))


def _check(scores: Scores, guard: Guard, quantity: Quantity, own: Method, other: Method) -> GuardCheck:
    found = contrast(scores, own, other, quantity)
    if not found.n:
        return GuardCheck(guard, "not measured", math.nan, math.nan)
    margins = [
        own_value - guard.bound(found.other_by_seed[seed]) for seed, own_value in sorted(found.own_by_seed.items())
    ]
    values = found.value, found.other_value
    if not found.enough:
        return GuardCheck(guard, "not shown", *values)
    if p_above(margins, 0.0) <= 1 - LEVEL:
        return GuardCheck(guard, "kept", *values)
    return GuardCheck(guard, "broken" if p_below(margins, 0.0) <= 1 - LEVEL else "not shown", *values)


def unmeasured_guards(scores: Scores) -> list[str]:
    """The metrics of the guards that cannot be checked because no run has them."""
    return [guard.metric for guard in (*GUARDS, PARENTS) if guard_quantity(scores, guard) is None]


def guard_quantity(scores: Scores, guard: Guard) -> Quantity | None:
    """The quantity that a guard reads; of a metric by frequency, the band of the rarest factors that most runs have."""
    found = [q for q in scores.quantities if q.metric == guard.metric and not q.reference]
    # Where a seed draws the world, the rarest band may be there for one seed in ten, and tell nothing of the others.
    known = lambda q: sum(map(math.isfinite, scores.values.get(q, {}).values()))
    return max(found, key=lambda q: (known(q), q.params), default=None)  # bands: 1e-1 to 1e0, 1e-2 to 1e-1, …
