"""Guards that void a win: it came from deleting latents, from shrinkage, from giving up rare factors or small effects.

At the point of comparison, the winner must keep
    95 % of the baseline's living latents,  95 % of its |x_hat| / |x|,  90 % of its recall of the rarest factors
(a baseline's value above 1 counts as 1). A winner by absorption must also find parents more often when a child is
active: thresholds on decoder cosines can be met by turning atoms, without finding a single parent. A winner by
additivity, interaction or overlap of effects downstream must keep 95 % of the size of effects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unbraid.comparison.compare import Comparison, Point, Scores, mean_at
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.wording import number


@dataclass(frozen=True)
class Guard:
    """A condition on a winner: it keeps a share of the baseline's value of a metric."""

    metric: str
    keeps: float
    """Share of the baseline's value that the winner must keep."""
    says: str
    enough: float = 1.0
    """A baseline's value above this counts as this."""

    def broken(self, own: float, baseline: float) -> bool:
        """True if a winner's value is too small in comparison with the baseline's."""
        return own < self.keeps * min(self.enough, baseline)


GUARDS = (
    Guard("alive", 0.95, "latents were deleted: living share"),
    Guard("l2_ratio", 0.95, "reconstructions shrank: |x_hat| / |x|"),
    Guard("recall_by_frequency", 0.9, "rare factors were given up: recall of the rarest"),
)
PARENTS = Guard("parent_recall_given_child", 1.0, "no parent is found more often together with its child: recall")
EFFECT = Guard("effect", 0.95, "effects shrank: their size, in that of random directions,", math.inf)
ADDED = ("additive_r2", "interaction", "overlap")
"""Metrics at which atoms without any effect downstream are best."""
ABSORPTION = ("absorption_full", "absorption_fractional", "probe_absorption_full", "probe_absorption_fraction")


def apply_guards(scores: Scores, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Mark wins that break a guard as void, with the numbers in the note."""
    faults = [(c, broken_guard(scores, c)) for c in comparisons]
    return [replace(c, outcome="void", note="; ".join(filter(None, (why, c.note)))) if why else c for c, why in faults]


def unmeasured_guards(scores: Scores) -> list[str]:
    """The metrics of the guards that cannot be checked because no run has them."""
    return [guard.metric for guard in (*GUARDS, PARENTS) if guard_quantity(scores, guard) is None]


def broken_guard(scores: Scores, c: Comparison) -> str:
    """Describe the first guard that a win breaks; empty when it breaks none, or is no win."""
    if c.outcome != "better":
        return ""
    applicable = [
        *GUARDS,
        *([PARENTS] if c.metric.metric in ABSORPTION else []),
        *([EFFECT] if c.metric.metric in ADDED else []),
    ]
    for guard in applicable:
        quantity = guard_quantity(scores, guard)
        if quantity is None or quantity == c.metric:
            continue
        own, baseline = (mean_of_named(scores, name, c.point, quantity) for name in (c.method, c.baseline))
        if guard.broken(own, baseline) or (guard is PARENTS and own == baseline):
            return f"void, {guard.says} {number(own)}, {c.baseline} {number(baseline)}"
    return ""


def guard_quantity(scores: Scores, guard: Guard) -> Quantity | None:
    """The quantity that a guard reads; of a metric by frequency, the band of the rarest factors."""
    found = [q for q in scores.quantities if q.metric == guard.metric and not q.reference]
    return max(found, key=lambda q: q.params, default=None)  # bands are named 1e-1 to 1e0, 1e-2 to 1e-1, …


def mean_of_named(scores: Scores, name: str, point: Point, quantity: Quantity) -> float:
    """The mean over seeds of a named method's quantity at a point; NaN when it was not measured there."""
    compared = [*scores.with_role("standard"), *scores.with_role("compared")]
    method = next((m for m in compared if m.name == name), None)
    return math.nan if method is None else mean_at(scores, method, point, quantity)
