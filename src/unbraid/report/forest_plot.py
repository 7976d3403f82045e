"""Forest plots: each method's gain over its own base with its interval, right is better, in percent of the width.

The page draws them with plain boxes, so that names and words stay text at every width of the window. 0 is in the middle
of every plot. Where the smallest effect of interest is known, plots of one claim share a scale in its units.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.judgement import Judgement, Word
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.wording import change, number, plural, signed, significant

ROOM = 47.0
"""Percent of the width on either side of 0."""
MOST_OPEN = 6
"""Largest number of rows that are shown unfolded."""
LEAST, FURTHEST = 1.5, 8.0
"""Smallest effects of interest that a plot shows on either side at least, and at most: what lies beyond is cut off."""


@dataclass(frozen=True)
class ForestRow:
    """One method's gain and interval."""

    method: str
    base: str
    names: tuple[str, str]
    """Both names as files and code have them."""
    identifier: str
    """The comparison, in these names."""
    word: Word
    x: float
    """Where the gain is, in percent of the width; NaN when nothing was compared."""
    low: float
    """Where the interval begins; NaN without one."""
    width: float
    cut: bool
    """True if the gain or its interval goes on beyond the edge."""
    text: str
    """The gain with its interval, or why there is none."""
    note: str
    """What there is to say besides the word."""


@dataclass(frozen=True)
class ForestPlot:
    """The gains of all methods by one score."""

    metric: Quantity
    rows: list[ForestRow]
    band: tuple[float, float] | None
    """Where the band of the smallest effect of interest begins, and its width; None where no such effect is known."""
    ticks: list[tuple[float, str]]
    """Where gains are written beneath."""
    smallest: float
    power: str
    """What the seeds could have found, next to the smallest effect of interest."""

    @property
    def shown(self) -> list[ForestRow]:
        """The rows that are shown unfolded."""
        return self.rows[:MOST_OPEN]

    @property
    def folded(self) -> list[ForestRow]:
        """The other rows."""
        return self.rows[MOST_OPEN:]


def reach_of(judgements: Sequence[Judgement]) -> float:
    """The number of smallest effects that plots of these judgements show on either side of 0."""
    ends = [(abs(j.contrast.gain) + half_of(j)) / j.smallest for j in judgements if compared(j) and j.smallest > 0]
    return min(FURTHEST, max([LEAST, *ends]))


def forest_plot(judgements: Sequence[Judgement], reach: float | None = None) -> ForestPlot:
    """Lay out the judgements of one score, the largest gain first and what was not compared last.

    reach: smallest effects on either side of 0, where several plots share a scale.
    """
    smallest = judgements[0].smallest
    known = sorted(filter(compared, judgements), key=lambda j: -j.contrast.gain)
    if smallest > 0:
        extent = smallest * (reach_of(judgements) if reach is None else reach)
    else:
        extent = max((abs(j.contrast.gain) + half_of(j) for j in known), default=0.0) or 1.0
    place = lambda gain: round(50 + ROOM * max(-1.0, min(1.0, gain / extent)), 2)
    rows = [known_row(j, place, extent) for j in known]
    rows += [
        ForestRow(
            method_name(j.contrast.method), method_name(j.contrast.other), (j.contrast.method, j.contrast.other),
            identifier(j), j.word, math.nan, math.nan,
            0.0, False, "", j.note,
        )
        for j in judgements
        if not compared(j)
    ]  # fmt: skip
    if not smallest > 0:
        decimals = significant(extent, 2)
        ticks = [(place(0.0), "0"), (place(extent), signed(extent, decimals))]
        return ForestPlot(judgements[0].metric, rows, None, ticks, smallest, power_of(known))
    decimals = significant(smallest, 2)
    ticks = [(place(at), signed(at, decimals) if at else "0") for at in (-smallest, 0.0, smallest)]
    ticks = ticks if ticks[2][0] - ticks[0][0] >= 30 else [ticks[1]]  # else they would overlap
    band = place(-smallest), round(place(smallest) - place(-smallest), 2)
    return ForestPlot(judgements[0].metric, rows, band, ticks, smallest, power_of(known))


def known_row(j: Judgement, place, extent: float) -> ForestRow:
    """The row of a gain that is known. place: from gains to percent of the width."""
    gain, half = j.contrast.gain, half_of(j)
    low, high = place(gain - half), place(gain + half)
    return ForestRow(
        method_name(j.contrast.method), method_name(j.contrast.other), (j.contrast.method, j.contrast.other),
            identifier(j), j.word, place(gain),
        low if j.contrast.enough else math.nan, round(high - low, 2), abs(gain) + half > extent * 1.001,
        change(gain, j.contrast.tested.half), j.note,
    )  # fmt: skip


def compared(found: Judgement) -> bool:
    """True if there is a gain."""
    return math.isfinite(found.contrast.gain)


def identifier(found: Judgement) -> str:
    """Return what files and code call the two methods and the score."""
    return f"{found.contrast.method} against {found.contrast.other}, by {found.metric.eval}.{found.metric.label}"


def half_of(found: Judgement) -> float:
    """The half-width of the interval; 0 without one."""
    half = found.contrast.tested.half
    return half if math.isfinite(half) else 0.0


def power_of(known: Sequence[Judgement]) -> str:
    """Say what the seeds could have found four times of five, next to the smallest effect of interest."""
    if not known:
        return ""
    seeds = plural(min(j.contrast.n for j in known), "seed")
    wanted = known[0].smallest
    of_interest = f"{number(wanted)} is the smallest of interest" if wanted > 0 else "no smallest of interest is known"
    found = sorted(j.could_find for j in known if math.isfinite(j.could_find))
    if not found:
        return f"{seeds}: too few to tell a difference; {of_interest}"
    least, most = number(found[0]), number(found[-1])
    size = least if least == most else f"{least} to {most}"
    return f"{seeds} could find {size}; {of_interest}"
