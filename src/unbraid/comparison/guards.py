"""When a win is void: it was had by deleting latents, by shrinking, by giving up rare factors, or by gaming cosines.

At the very point of a comparison, the winner must keep
    95 % of the baseline's living latents,  95 % of its |x_hat| / |x|,  90 % of its recall of the rarest factors
(of 1, where the baseline has more), and where it has less absorption, find parents more often when a child is there:
thresholds on decoder cosines can be met by turning atoms, without finding a single parent. Where its effects downstream
add up better, interact less or overlap less, it must keep 95 % of their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unbraid.comparison.compare import Comparison, Method, Point, Quantity, Scores, match
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.wording import number


@dataclass(frozen=True)
class Guard:
    metric: str
    keeps: float
    """Share of the baseline's value that must be left."""
    says: str
    enough: float = 1.0
    """A baseline's value above this counts as this: nobody is asked to overshoot."""


GUARDS = (
    Guard("alive", 0.95, "latents were deleted: living share"),
    Guard("l2_ratio", 0.95, "reconstructions shrank: |x_hat| / |x|"),
    Guard("recall_by_frequency", 0.9, "rare factors were given up: recall of the rarest"),
)
PARENTS = Guard("parent_recall_given_child", 1.0, "no parent is found more often beside its child: recall")
EFFECT = Guard("effect", 0.95, "effects shrank: their size, in that of random directions,", math.inf)
ADDED = ("additive_r2", "interaction", "overlap")
"""What atoms that do nothing downstream are best at."""
ABSORPTION = ("absorption_full", "absorption_fractional", "probe_absorption_full", "probe_absorption_fraction")


def guarded(scores: Scores, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same, with wins that break a guard called void, and the numbers that show it in the note."""
    faults = [(c, fault(scores, c)) for c in comparisons]
    return [replace(c, word="void", note="; ".join(filter(None, (why, c.note)))) if why else c for c, why in faults]


def unmeasured(scores: Scores) -> list[str]:
    """Guards that nothing was measured for, so that they hold nobody back."""
    return [guard.metric for guard in (*GUARDS, PARENTS) if guarding(scores, guard) is None]


def fault(scores: Scores, c: Comparison) -> str:
    """What makes a win void; empty when nothing does, or it is no win."""
    if c.word != "better":
        return ""
    asked = [
        *GUARDS,
        *([PARENTS] if c.metric.metric in ABSORPTION else []),
        *([EFFECT] if c.metric.metric in ADDED else []),
    ]
    for guard in asked:
        quantity = guarding(scores, guard)
        if quantity is None or quantity == c.metric:
            continue
        own, baseline = (mean_at(scores, name, c.point, quantity) for name in (c.method, c.baseline))
        if own < guard.keeps * min(guard.enough, baseline) or (guard is PARENTS and own == baseline):
            return f"void, {guard.says} {number(own)}, {c.baseline} {number(baseline)}"
    return ""


def guarding(scores: Scores, guard: Guard) -> Quantity | None:
    """The quantity a guard reads: of one by frequency, the band of the rarest factors."""
    found = [q for q in scores.quantities if q.metric == guard.metric and not q.reference]
    return max(found, key=lambda q: q.params, default=None)  # bands are named 1e-1 to 1e0, 1e-2 to 1e-1, …


def mean_at(scores: Scores, name: str, point: Point, quantity: Quantity) -> float:
    compared = [*scores.having("standard"), *scores.having("compared")]
    method = next((m for m in compared if m.name == name), None)
    return math.nan if method is None else at(scores, method, point, quantity)


def at(scores: Scores, method: Method, point: Point, quantity: Quantity) -> float:
    curves = scores.curves(method, point.quantity, quantity)
    matched = match(curves, curves, point)
    return math.nan if matched is None else t_interval(list(matched.a.values())).mean
