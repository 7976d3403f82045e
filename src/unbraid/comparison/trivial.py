"""Trivial controls (untrained, random, principal components): a score on which they do as well gives no verdict.

A score at a point gives no verdict unless the best standard SAE is better there than each trivial control, by an
interval over seeds. Where a trivial control explains more of the activations than every SAE, wherever the two can be
matched, all SAEs are undertrained, and there is no answer at all.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from unbraid.comparison.compare import Comparison, Method, Point, Scores, best_method, compare_pair, points
from unbraid.comparison.quantities import AXES
from unbraid.comparison.wording import listed, number

JUDGED = ("better", "worse", "void", "no difference shown")


def withhold_verdicts(scores: Scores, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Withhold the verdict on one score at one point where a trivial control does as well as the baseline."""
    if not comparisons or comparisons[0].metric.diagnostic:
        return list(comparisons)
    first = comparisons[0]
    why = controls_as_good(scores, first) if any(c.outcome in JUDGED for c in comparisons) else ""
    note = lambda c: "; ".join(filter(None, (why, c.note)))
    return [replace(c, outcome="no verdict", note=note(c)) if why and c.outcome in JUDGED else c for c in comparisons]


def controls_as_good(scores: Scores, c: Comparison) -> str:
    """Say which trivial controls do as well as the baseline of a comparison; empty when none does."""
    baseline = next((m for m in scores.with_role("standard") if m.name == c.baseline), None)
    if baseline is None:
        return ""
    found = {
        control.name: compare_pair(scores, baseline, control, c.point, c.metric) for control in trivial_controls(scores)
    }
    good = [f"{name} {number(f.baseline_value)}" for name, f in found.items() if not beats_control(f)]
    if not good:
        return ""
    own = number(next(iter(found.values())).value)
    return f"the best standard SAE, {c.baseline} {own}, is not shown to be better than the control {listed(good)}"


def beats_control(found: Comparison) -> bool:
    """True if a method is better than a control, or could not be compared with it."""
    return found.outcome in ("better", "not comparable") or (found.outcome == "no interval" and found.gain > 0)


def trivial_controls(scores: Scores) -> list[Method]:
    """The controls that were not trained."""
    return [method for method in scores.with_role("control") if method.trivial]


def undertrained(scores: Scores, d_sae: int) -> str:
    """Say where trivial controls explain more than every SAE; empty when an SAE explains more, or none is matched."""
    fvu = scores.find(dict(AXES)["FVU"])
    trained = [*scores.with_role("standard", d_sae), *scores.with_role("compared", d_sae)]
    if fvu is None:
        return ""
    lost = []
    for point in points(scores, AXES[0][0], d_sae):
        control, best = (best_method(scores, among, point, fvu) for among in (trivial_controls(scores), trained))
        if control is None or best is None:
            continue
        found = compare_pair(scores, best, control, point, fvu)
        if not (found.outcome == "worse" or (found.outcome == "no interval" and found.gain < 0)):
            return ""
        lost.append(describe_loss(found, point))
    if not lost:
        return ""
    return f"undertrained: a control that was not trained explains more than every SAE, {listed(lost)}; train longer"


def describe_loss(found: Comparison, point: Point) -> str:
    """Describe how much less the best SAE explains than a control."""
    values = [number(v) if math.isfinite(v) else "unknown" for v in (found.baseline_value, found.value)]
    return f"at L0 {number(point.at)} {found.baseline} has FVU {values[0]}, the best SAE, {found.method}, {values[1]}"
