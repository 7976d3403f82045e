"""Forest plots: each method's gain over its own base with its interval, right is better, in percent of the width.

The page draws them with plain boxes, so that names and words stay text at every width of the window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.judgement import Judgement, Word
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.wording import change, number, signed, significant

MARGIN = 3.0
"""Room at both ends, in percent."""
MOST_OPEN = 12
"""Largest number of rows that are shown unfolded."""


@dataclass(frozen=True)
class ForestRow:
    """One method's gain and interval."""

    method: str
    base: str
    word: Word
    x: float
    """Where the gain is, in percent of the width; NaN when nothing was compared."""
    low: float
    """Where the interval begins; NaN without one."""
    width: float
    text: str
    """The gain with its interval, or why there is none."""
    note: str
    """What there is to say besides the word."""


@dataclass(frozen=True)
class ForestPlot:
    """The gains of all methods by one score."""

    metric: Quantity
    rows: list[ForestRow]
    zero: float
    band: tuple[float, float] | None
    """Where the band of the smallest effect of interest begins, and its width; None where no such effect is known."""
    ticks: list[tuple[float, str]]
    """Where gains are written beneath."""
    smallest: float

    @property
    def shown(self) -> list[ForestRow]:
        """The rows that are shown unfolded."""
        return self.rows[:MOST_OPEN]

    @property
    def folded(self) -> list[ForestRow]:
        """The other rows."""
        return self.rows[MOST_OPEN:]


def forest_plot(judgements: Sequence[Judgement]) -> ForestPlot:
    """Lay out the judgements of one score, the largest gain first and what was not compared last."""
    known = [j for j in judgements if math.isfinite(j.contrast.gain)]
    smallest = judgements[0].smallest
    known.sort(key=lambda j: -j.contrast.gain)
    ends = [0.0] if math.isnan(smallest) else [-smallest, smallest]
    ends += [j.contrast.gain + side * half_of(j) for j in known for side in (-1, 1)]
    low, high = min(ends), max(ends)
    scale = (100 - 2 * MARGIN) / (high - low) if high > low else 0.0
    place = lambda gain: round(MARGIN + (gain - low) * scale, 2) if scale else 50.0
    rows = [
        ForestRow(
            j.contrast.method, j.contrast.other, j.word, place(j.contrast.gain),
            place(j.contrast.gain - half_of(j)) if j.contrast.enough else math.nan,
            round(2 * half_of(j) * scale, 2), change(j.contrast.gain, j.contrast.tested.half), j.note,
        )
        for j in known
    ]  # fmt: skip
    rows += [
        ForestRow(j.contrast.method, j.contrast.other, j.word, math.nan, math.nan, 0.0, "", j.note)
        for j in judgements
        if not math.isfinite(j.contrast.gain)
    ]
    if math.isnan(smallest):
        return ForestPlot(judgements[0].metric, rows, place(0.0), None, [(place(0.0), "0")], smallest)
    decimals = significant(smallest, 2)
    ticks = [(place(at), signed(at, decimals) if at else "0") for at in (-smallest, 0.0, smallest)]
    ticks = ticks if ticks[2][0] - ticks[0][0] >= 30 else [ticks[1]]  # else they would overlap
    band = place(-smallest), round(2 * smallest * scale, 2)
    return ForestPlot(judgements[0].metric, rows, place(0.0), band, ticks, smallest)


def half_of(found: Judgement) -> float:
    """The half-width of the interval; 0 without one."""
    half = found.contrast.tested.half
    return half if math.isfinite(half) else 0.0


def band_text(plot: ForestPlot) -> str:
    """Say what the band is; empty where there is none."""
    return "" if plot.band is None else f"band: ±{number(plot.smallest)}, the smallest effect of interest"
