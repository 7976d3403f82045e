"""Does a score fall where a dictionary was damaged, kind by kind, and does it fall further where more was?

    change = (mean at the largest share - mean of the whole) / standard deviation of a method's score over draws

signed so that better is more. A damage is seen where the change is below -SEEN and the score falls with the share in
every source; it fools a score that rises by more than SEEN.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import rankdata

from benchmarks.audit.damage import DAMAGES
from benchmarks.audit.rows import Rows

SEEN = 2.0
"""Change in standard deviations over draws that counts."""
STEADY = 0.75
"""Least mean |rank correlation| of score and share at which a change counts."""
Word = Literal["seen", "blind", "fooled", "unknown"]


class Change(NamedTuple):
    """What a kind of damage does to a score."""

    size: float
    """Change at the largest share, in standard deviations; negative where the score sees the damage."""
    order: float
    """Mean over sources of the rank correlation of the score with the share."""

    @property
    def word(self) -> Word:
        if not math.isfinite(self.size):
            return "unknown"
        if abs(self.size) < SEEN or abs(self.order) < STEADY:
            return "blind"
        return "seen" if self.size < 0 else "fooled"


def changes(rows: Rows, score: str, sd: float, ceiling: str) -> dict[str, Change]:
    """Return the change by kind of damage. sd: standard deviation of a method's score over draws."""
    sign = -1.0 if rows.better[score] == "lower" else 1.0
    return {name: change(rows, score, name, sd, ceiling, sign) for name in DAMAGES}


def change(rows: Rows, score: str, name: str, sd: float, ceiling: str, sign: float) -> Change:
    """Return what one kind of damage does."""
    ladders = [ladder(rows, score, name, source, ceiling) for source in sources(rows)]
    whole = [found for found in ladders if len(found) > 1 and all(map(math.isfinite, found.values()))]
    if not whole:
        return Change(math.nan, math.nan)
    moved = sign * float(np.mean([found[max(found)] - found[0.0] for found in whole]))
    size = moved / sd if sd > 0 else math.nan if moved else 0.0
    return Change(size, sign * float(np.mean([order(found) for found in whole])))


def sources(rows: Rows) -> list[int]:
    """Return the numbers of the sources that ceilings were damaged on."""
    return sorted({case.source for case in rows.scores if case.kind == "damaged"})


def ladder(rows: Rows, score: str, name: str, source: int, ceiling: str) -> dict[float, float]:
    """Return a score by damaged share on one source, 0 for the whole ceiling."""
    found = {}
    for case, own in rows.scores.items():
        if case.source != source:
            continue
        if case.kind == "control" and case.name == ceiling:
            found[0.0] = own.get(score, math.nan)
        elif case.kind == "damaged" and case.name == name:
            found[case.share] = own.get(score, math.nan)
    return found if 0.0 in found else {}


def order(found: Mapping[float, float]) -> float:
    """Return the rank correlation of a score with the share; 0 for one that does not move."""
    values = list(found.values())
    return float(np.corrcoef(rankdata(list(found)), rankdata(values))[0, 1]) if max(values) > min(values) else 0.0
