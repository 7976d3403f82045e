"""Controls that nothing was trained for (untrained, random, principal components): what they do as well says nothing.

A score at a point gives no verdict unless the best standard SAE is better there than each of them, by an interval over
seeds. Where one of them explains more of the activations than every SAE, wherever the two can be matched, training has
not got as far as a linear method, and the whole study is undertrained.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from unbraid.comparison.compare import AXES, Comparison, Method, Point, Scores, against, best_at, points
from unbraid.comparison.wording import listed, number

JUDGED = ("better", "worse", "void", "no difference shown")


def tempered(scores: Scores, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons of one score at one point, without a verdict where a trivial control does as well as the baseline."""
    if not comparisons or comparisons[0].metric.diagnostic:
        return list(comparisons)
    first = comparisons[0]
    why = as_good(scores, first) if any(c.word in JUDGED for c in comparisons) else ""
    note = lambda c: "; ".join(filter(None, (why, c.note)))
    return [replace(c, word="no verdict", note=note(c)) if why and c.word in JUDGED else c for c in comparisons]


def as_good(scores: Scores, c: Comparison) -> str:
    """Which trivial controls do as well as the baseline of a comparison, in words; empty when none does."""
    baseline = next((m for m in scores.having("standard") if m.name == c.baseline), None)
    if baseline is None:
        return ""
    found = {control.name: against(scores, baseline, control, c.point, c.metric) for control in trivial(scores)}
    good = [f"{name} {number(f.baseline_value)}" for name, f in found.items() if not beaten(f)]
    if not good:
        return ""
    own = number(next(iter(found.values())).value)
    return f"the best standard SAE, {c.baseline} {own}, is not shown to be better than the control {listed(good)}"


def beaten(found: Comparison) -> bool:
    """Whether a method is better than a control, or could not be compared with it."""
    return found.word in ("better", "not comparable") or (found.word == "no interval" and found.gain > 0)


def trivial(scores: Scores) -> list[Method]:
    return [method for method in scores.having("control") if method.trivial]


def undertrained(scores: Scores, d_sae: int) -> str:
    """How trivial controls explain more than every SAE; empty when some SAE explains more, or none can be matched."""
    fvu = scores.first(dict(AXES)["FVU"])
    trained = [*scores.having("standard", d_sae), *scores.having("compared", d_sae)]
    if fvu is None:
        return ""
    lost = []
    for point in points(scores, AXES[0][0], d_sae):
        control, best = (best_at(scores, among, point, fvu) for among in (trivial(scores), trained))
        if control is None or best is None:
            continue
        found = against(scores, best, control, point, fvu)
        if not (found.word == "worse" or (found.word == "no interval" and found.gain < 0)):
            return ""
        lost.append(in_words(found, point))
    if not lost:
        return ""
    return f"undertrained: a control that was not trained explains more than every SAE, {listed(lost)}; train longer"


def in_words(found: Comparison, point: Point) -> str:
    values = [number(v) if math.isfinite(v) else "unknown" for v in (found.baseline_value, found.value)]
    return f"at L0 {number(point.at)} {found.baseline} has FVU {values[0]}, the best SAE, {found.method}, {values[1]}"
