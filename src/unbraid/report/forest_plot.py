"""A forest plot as plain SVG: each method's gain over the baseline with its interval; right is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.scores import Comparison
from unbraid.comparison.wording import change
from unbraid.report.figures import Look

LEFT, RIGHT, ROW = 128.0, 372.0, 20.0


@dataclass(frozen=True)
class ForestRow:
    """One method's difference and interval, in coordinates of the drawing."""

    method: str
    y: float
    colour: str
    x: float
    low: float
    high: float
    interval: bool
    text: str
    """The text for screen readers."""


@dataclass(frozen=True)
class ForestPlot:
    """All rows of a forest plot, in coordinates of the drawing."""

    rows: list[ForestRow]
    missing: list[str]
    """The methods that could not be compared."""
    zero: float
    height: float


def forest_plot(comparisons: Sequence[Comparison], looks: dict[str, Look]) -> ForestPlot | None:
    """Lay out the differences of one metric; None when nothing could be compared."""
    found = [c for c in comparisons if math.isfinite(c.gain)]
    if not found:
        return None
    halves = [c.difference.half if math.isfinite(c.difference.half) else 0.0 for c in found]
    low = min(0.0, *(c.gain - h for c, h in zip(found, halves, strict=True)))
    high = max(0.0, *(c.gain + h for c, h in zip(found, halves, strict=True)))
    scale = (RIGHT - LEFT - 16) / (high - low) if high > low else 0.0

    def place(gain: float) -> float:
        return round(LEFT + 8 + (gain - low) * scale, 2) if scale else (LEFT + RIGHT) / 2

    lines = [
        ForestRow(
            c.method, ROW * (i + 0.5), looks[c.method].colour, place(c.gain), place(c.gain - h), place(c.gain + h),
            math.isfinite(c.difference.half), f"{c.method}: {c.outcome}, {change(c.difference)}",
        )
        for i, (c, h) in enumerate(zip(found, halves, strict=True))
    ]  # fmt: skip
    missing = [c.method for c in comparisons if not math.isfinite(c.gain)]
    return ForestPlot(lines, missing, place(0.0), ROW * len(found))
