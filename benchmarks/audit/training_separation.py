"""Third lens: does a score rise with training, and by how many of its own standard deviations over draws?

    separation of two stages = (mean of the later - mean of the earlier) / root mean square of their spreads

signed so that more is better. A stage is a run on a share of the tokens, with a schedule of its own.
"""

import math
from typing import NamedTuple

import numpy as np

from benchmarks.audit.panel import FULL, SHORTENED, TOKEN_SHARES
from benchmarks.audit.reseed_noise import spread
from benchmarks.audit.rows import Rows
from unbraid.comparison.power import pooled

STAGES = (0.0, *TOKEN_SHARES, FULL)
UNTRAINED = "untrained"
BACK = -1.0
"""Separation below which a step goes the wrong way."""


class Rise(NamedTuple):
    """A score along a training."""

    means: tuple[float, ...]
    steps: tuple[float, ...]
    """Separation of each stage from the one before."""
    whole: float
    """Separation of the last stage from the first."""

    @property
    def rises(self) -> bool:
        """True if it ends higher than it began and no known step goes the wrong way."""
        return self.whole > 0 and all(step > BACK for step in self.steps if math.isfinite(step))


def rise(rows: Rows, score: str) -> Rise:
    """Work out how a score rises along the training."""
    sign = -1.0 if rows.better[score] == "lower" else 1.0
    stages = [stage(rows, score, share) for share in STAGES]
    steps = tuple(separation(a, b, sign) for a, b in zip(stages, stages[1:], strict=False))
    means = tuple(mean(values) for values in stages)
    return Rise(means, steps, separation(stages[0], stages[-1], sign))


def stage(rows: Rows, score: str, share: float) -> dict[tuple[int, int], float]:
    """Return a score's values by draw, of the runs on a share of the tokens."""
    kind, name = {0.0: ("control", UNTRAINED), FULL: ("equal", SHORTENED)}.get(share, ("short", SHORTENED))
    wanted = FULL if share == 0 else share
    return {
        (case.source, case.seed): own.get(score, math.nan)
        for case, own in rows.scores.items()
        if case.kind == kind and case.name.startswith(f"{name}-") and case.share == wanted
    }


def mean(values: dict[tuple[int, int], float]) -> float:
    """Return the mean of the known values."""
    known = [value for value in values.values() if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def separation(earlier: dict[tuple[int, int], float], later: dict[tuple[int, int], float], sign: float) -> float:
    """Return how far two stages are apart, in standard deviations of one run."""
    apart, width = sign * (mean(later) - mean(earlier)), pooled([spread(earlier), spread(later)])
    if not math.isfinite(apart) or not math.isfinite(width):
        return math.nan
    if width == 0:
        return math.copysign(math.inf, apart) if apart else 0.0
    return apart / width
