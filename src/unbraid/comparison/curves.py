"""Curves of one seed's scores against L0 (or FVU, or bits), read at a common point without extrapolation."""

import math
from collections.abc import Sequence

TOLERANCE = 0.10
"""Relative difference up to which two values of L0 (or FVU, or bits) count as matched."""

Curve = Sequence[tuple[float, float]]
"""Measured points (x, y), ascending in x, x > 0. A missing y is NaN, and nothing is interpolated across it."""


def interpolate(curve: Curve, x: float) -> float:
    """Return y at x, linear in log x between the measured neighbours. Raises ValueError outside the measured range."""
    if not curve or not curve[0][0] <= x <= curve[-1][0]:
        raise ValueError(f"{x:g} is outside the measured range")
    for (x0, y0), (x1, y1) in zip(curve, curve[1:], strict=False):
        if x == x0:
            return y0
        if x0 < x < x1:
            share = math.log(x / x0) / math.log(x1 / x0)
            return y0 + share * (y1 - y0)
    return curve[-1][1]


def nearest(curve: Curve, x: float) -> tuple[float, float] | None:
    """Return the measured point nearest to x if it is within TOLERANCE; else None."""
    close = [point for point in curve if abs(point[0] / x - 1) <= TOLERANCE]
    return min(close, key=lambda point: abs(math.log(point[0] / x))) if close else None


def clusters(values: Sequence[float]) -> list[float]:
    """Return the geometric means of groups of values that lie within TOLERANCE of the group's smallest."""
    groups: list[list[float]] = []
    for value in sorted(v for v in values if v > 0 and math.isfinite(v)):
        if groups and value <= groups[-1][0] * (1 + TOLERANCE):
            groups[-1].append(value)
        else:
            groups.append([value])
    return [math.exp(math.fsum(map(math.log, group)) / len(group)) for group in groups]
