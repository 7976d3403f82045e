"""Published figures of SAEs, from published.json: by model, layer, width and architecture, and interpolated at an L0.

    y(L0) = y_a + (y_b - y_a) log(L0 / L0_a) / log(L0_b / L0_a),   L0_a <= L0 <= L0_b the nearest published

The file is made by `benchmarks/published_figures.py` from what their authors published.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unbraid.config.hints import nearest as nearest_name
from unbraid.system.files import read_json

FILE = Path(__file__).parent / "published.json"
REMEDY = "install unbraid again"
BEYOND = 0.05
"""Share by which an L0 may pass the published ones and still be compared with the last: their own L0 differs by as much
between two texts (up to .09)."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One score of published SAEs of one model, layer and width."""

    eval: str
    """The eval, metric and params that we store the score by."""
    metric: str
    params: Mapping[str, Any]
    better: str
    model: str
    layer: int
    site: str
    width: int
    saes: Mapping[str, Sequence[tuple[float, float]]]
    """L0 and figure of each SAE, by architecture, ascending in L0."""
    source: str
    """The repository, and in it the file."""
    file: str
    settings: Mapping[str, Any]
    """The eval's settings, as far as they are known."""
    noise: float | None
    """The largest difference between two scorings of the same SAEs; None where they were scored once."""
    tokens: int | None
    """Tokens that the SAEs were trained on; None where it is not said."""
    about: Mapping[str, str]
    """What else was particular, by architecture."""


@cache
def published_figures() -> tuple[Figures, ...]:
    """All published figures. Raises ValueError when the file is not what was installed."""
    try:
        return tuple(map(figures_of, read_json(FILE, remedy=REMEDY)["figures"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE} is not the file that came with unbraid ({error}); {REMEDY}") from error


def figures_of(stored: Mapping[str, Any]) -> Figures:
    """The figures that an object of JSON holds."""
    saes = {name: [(float(l0), float(value)) for l0, value in pairs] for name, pairs in stored["saes"].items()}
    return Figures(**{"about": {}, **stored, "saes": saes})


def interpolated(saes: Sequence[tuple[float, float]], l0: float) -> float | None:
    """The published figure at an L0, linear in its logarithm; up to `BEYOND` outside of the published range that of its
    end, and None farther out."""
    first, last = saes[0], saes[-1]
    if not first[0] * (1 - BEYOND) <= l0 <= last[0] * (1 + BEYOND):
        return None
    for (low, before), (high, after) in zip(saes, saes[1:], strict=False):
        if low <= l0 <= high:
            return before + (after - before) * math.log(l0 / low) / math.log(high / low)
    return first[1] if l0 < first[0] else last[1]


def nearest(saes: Sequence[tuple[float, float]], l0: float) -> tuple[float, float]:
    """The L0 and figure of the SAE whose L0 is nearest, by its logarithm."""
    return min(saes, key=lambda one: abs(math.log(one[0] / l0)))


def check_architecture(name: str) -> None:
    """Raise ValueError for an architecture of which there are no figures; no name is none."""
    known = sorted({architecture for one in published_figures() for architecture in one.saes})
    if name and name not in known:
        raise ValueError(f"--architecture {name!r} has no published figures; {nearest_name(name.lower(), known)}")
