"""Formatting of numbers and lists for readers: three significant digits, a real minus sign, "a, b and c"."""

import math
from collections.abc import Sequence

from unbraid.comparison.intervals import Interval


def number(value: float, decimals: int | None = None) -> str:
    """Format a number with three significant digits, or with `decimals` decimals."""
    if not math.isfinite(value):
        return "NaN"
    if value != 0 and abs(value) < 1e-4 and (decimals is None or decimals > 6):
        return f"{value:.1e}".replace("-", "−")
    return f"{value:,.{significant(value) if decimals is None else decimals}f}".replace("-", "−")


def significant(value: float, digits: int = 3) -> int:
    """The number of decimals that shows `digits` significant digits."""
    return 0 if value == 0 or not math.isfinite(value) else max(0, digits - 1 - math.floor(math.log10(abs(value))))


def signed(value: float, decimals: int) -> str:
    """Format a number with its sign; a number that rounds to 0 has none."""
    shown = number(value, decimals)
    if not any(digit in shown for digit in "123456789"):
        return shown.removeprefix("−")
    return ("+" if value > 0 else "") + shown


def mean_half(interval: Interval) -> str:
    """Format an interval, as in "0.812 ± 0.021"."""
    if not math.isfinite(interval.half):
        return number(interval.mean)
    decimals = max(2 if abs(interval.mean) < 10 else 0, significant(interval.mean))
    tiny = 10.0**-decimals
    half = f"± <{number(tiny, decimals)}" if 0 < interval.half < tiny / 2 else f"± {number(interval.half, decimals)}"
    return f"{number(interval.mean, decimals)} {half}"


def change(mean: float, half: float) -> str:
    """Format a difference and its interval, as in "+0.19 [+0.15, +0.23]"."""
    size = half if math.isfinite(half) and half > 1e-4 * abs(mean) else mean  # rounding errors are no interval
    decimals = significant(size, 2)
    if not math.isfinite(half):
        return signed(mean, decimals)
    low, high = signed(mean - half, decimals), signed(mean + half, decimals)
    return f"{signed(mean, decimals)} [{low}, {high}]"


def listed(items: Sequence[str]) -> str:
    """Join items, as in "a, b and c"."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1]))) if items else ""


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, as in "1 seed" and "3 seeds"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
