"""Numbers and tables as the page on trust has them."""

import math
import re
from collections.abc import Sequence

NONE = "–"


def figure(value: float) -> str:
    """Return a number with three significant digits."""
    if not math.isfinite(value):
        return NONE
    return short(f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.3g}")


def short(text: str) -> str:
    """Return numbers without a leading 0 and with a real minus sign."""
    return signed_minus(re.sub(r"(?<![\d.])0\.(?=\d)", ".", text))


def signed_minus(text: str) -> str:
    return re.sub(r"(?<!e)-(?=[\d.∞])", "−", text)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
