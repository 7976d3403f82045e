"""Convergence of training: by how much the loss still fell at the end of its plateau.

A log-linear fit of the reconstruction loss over the last fifth of training before the learning rate falls (a falling
rate lowers any loss, and does not show what more training would do). Falls within two standard errors of 0 count as 0.
"""

import math
from collections.abc import Sequence

import numpy as np

from unbraid.comparison.names import method_name
from unbraid.comparison.scores import Scores
from unbraid.comparison.stored_scores import StoredRun
from unbraid.comparison.wording import listed

LOSS = "losses/reconstruction"
SHARE = 0.2
"""Share of training that the fit covers."""
FALLING = 0.05
"""Largest fall of a converged loss over that time, as a share of the loss."""
FEWEST = 4
"""Least number of logged rows for a fit."""


def fall(run: StoredRun) -> float:
    """The share by which a run's loss fell at the end; NaN when its log has too few rows."""
    rows = [row for row in run.log() if row.get(LOSS, 0) > 0 and "step" in row]
    if not rows:
        stored = run.provenance.get("fall")  # of committed rows, which have no log
        return float(stored) if isinstance(stored, int | float) else math.nan
    last = rows[-1]["step"]
    top = max(row.get("lr", 0.0) for row in rows)
    plateau = [row for row in rows if row.get("lr", 0.0) >= 0.999 * top]
    end = plateau[-1]["step"]
    seen = [row for row in plateau if row["step"] >= end - SHARE * last]
    if len(seen) < FEWEST or last <= 0:
        return math.nan
    x = np.array([row["step"] for row in seen], dtype=float)
    y = np.log([row[LOSS] for row in seen])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    span = SHARE * last
    return float(-np.expm1(slope * span)) if abs(slope) > 2 * math.sqrt(covariance[0][0]) else 0.0


def falls(scores: Scores) -> dict[str, float]:
    """The largest fall among the runs of each trained method; methods without usable logs are left out."""
    found: dict[str, float] = {}
    for method in scores.methods:
        known = [f for run in method.runs if math.isfinite(f := fall(run))] if method.role != "control" else []
        if known:
            found[method.name] = max(known)
    return found


def caveat(found: dict[str, float], methods: Sequence[str]) -> str:
    """Say in one sentence which of `methods` were still improving; empty when none was."""
    moving = {name: found[name] for name in methods if found.get(name, 0.0) > FALLING}
    if not moving:
        return ""
    most = max(moving.values())
    return (
        f"Training had not converged: over its last fifth before the learning rate fell, the reconstruction loss of "
        f"{listed([*map(method_name, moving)])} still fell, by up to {most:.0%}. Longer training may change the answer."
    )
