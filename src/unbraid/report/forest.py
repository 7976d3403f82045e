"""A forest plot as plain SVG: each method's gain over the baseline with its interval; right is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.compare import Comparison
from unbraid.comparison.wording import change
from unbraid.report.figures import Look

LEFT, RIGHT, ROW = 128.0, 372.0, 20.0


@dataclass(frozen=True)
class Line:
    method: str
    y: float
    colour: str
    x: float
    low: float
    high: float
    interval: bool
    text: str
    """What a reader of the screen hears."""


@dataclass(frozen=True)
class Forest:
    lines: list[Line]
    missing: list[str]
    """Methods that could not be compared."""
    zero: float
    height: float


def forest(comparisons: Sequence[Comparison], looks: dict[str, Look]) -> Forest | None:
    """None when nothing could be compared."""
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
        Line(
            c.method, ROW * (i + 0.5), looks[c.method].colour, place(c.gain), place(c.gain - h), place(c.gain + h),
            math.isfinite(c.difference.half), f"{c.method}: {c.word}, {change(c.difference)}",
        )
        for i, (c, h) in enumerate(zip(found, halves, strict=True))
    ]  # fmt: skip
    missing = [c.method for c in comparisons if not math.isfinite(c.gain)]
    return Forest(lines, missing, place(0.0), ROW * len(found))
