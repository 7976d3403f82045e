"""Beating every standard SAE, by intersection and union: a method beats all if it beats each (Berger 1982).

The p-value is the largest of the one-sided ones, so nothing is chosen and nothing corrected. A standard SAE that is
shown to break a guard against the method is not admissible: what it gives up may be what its score was bought with.
"""

import math
from dataclasses import dataclass

from unbraid.comparison.contrast import Contrast, contrast
from unbraid.comparison.guards import checked
from unbraid.comparison.intervals import LEVEL
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores
from unbraid.comparison.wording import listed


@dataclass(frozen=True)
class AgainstAll:
    """A method against every admissible standard SAE, by one score."""

    method: str
    metric: Quantity
    p: float
    """The largest one-sided p-value; NaN when nothing could be tested."""
    hardest: Contrast | None
    """The contrast that has it."""
    opponents: tuple[str, ...]
    inadmissible: tuple[str, ...]
    """Standard SAEs that broke a guard, each with what was found."""
    untested: tuple[str, ...]
    """Standard SAEs that could not be compared, each with the reason."""

    @property
    def beats_all(self) -> bool:
        """True if it is shown to be better than every admissible one, and none was left untested."""
        return self.p <= 1 - LEVEL and not self.untested

    @property
    def sentence(self) -> str:
        """The outcome in a sentence."""
        if not self.opponents:
            return f"{self.method} could be compared with no standard SAE by {self.metric.name}"
        tested = f"{len(self.opponents)} standard SAEs ({listed(self.opponents)})"
        if self.beats_all:
            return f"{self.method} beats each of {tested} by {self.metric.name}"
        last = self.hardest.other if self.hardest is not None else ""
        said = f"{self.method} is not shown to beat each of {tested} by {self.metric.name}; the hardest is {last}"
        return f"{said}; not tested against {listed(self.untested)}" if self.untested else said


def against_all(scores: Scores, method: Method, metric: Quantity) -> AgainstAll:
    """Test whether a method beats every admissible standard SAE of its width by a score."""
    tested: list[Contrast] = []
    inadmissible: list[str] = []
    untested: list[str] = []
    for other in scores.with_role("standard", method.d_sae):
        if other.short == method.short:
            continue
        found = contrast(scores, method, other, metric)
        if not found.enough:
            untested.append(f"{other.short} ({found.note or f'{found.n} seeds'})")
        elif broken := [c for c in checked(scores, other, method, metric) if c.outcome == "broken"]:
            inadmissible.append(f"{other.short}: {broken[0].sentence}")
        else:
            tested.append(found)
    hardest = max(tested, key=lambda c: c.p_ahead(), default=None)
    p = math.nan if hardest is None else hardest.p_ahead()
    names = tuple(c.other for c in tested)
    return AgainstAll(method.short, metric, p, hardest, names, tuple(inadmissible), tuple(untested))
