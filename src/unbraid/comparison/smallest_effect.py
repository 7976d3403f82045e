"""The smallest effect of interest of a score on a testbed: a third of what is known to separate two architectures.

    Delta = |Matryoshka - BatchTopK| / 3            where a 95 % interval shows that they differ
            |truth - BatchTopK| / 10                else, where the gate has a truth, supervised probes or a ceiling

from calibration seeds where there are any. A third of the whole way to the truth would be larger than any difference
between architectures, and would call all of them equivalent.
"""

import math
from dataclasses import dataclass

from unbraid.comparison.contrast import contrast
from unbraid.comparison.gate import truth_of
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Scores, mean_value, standard_named
from unbraid.comparison.wording import number

REFERENCE, OTHER = "batchtopk", "matryoshka"
SHARE_OF_ARCHITECTURES = 1 / 3
SHARE_OF_ROOM = 1 / 10


@dataclass(frozen=True)
class SmallestEffect:
    """The smallest effect of interest of one score, and where it is from."""

    metric: Quantity
    value: float
    """NaN when nothing is known to measure it by."""
    source: str


def smallest_effects(scores: Scores, d_sae: int) -> dict[Quantity, SmallestEffect]:
    """The smallest effect of interest of each headline score at a width."""
    return {q: smallest_effect(scores, d_sae, q) for q in scores.headline if q.sign}


def smallest_effect(scores: Scores, d_sae: int, metric: Quantity) -> SmallestEffect:
    """The smallest effect of interest of one score."""
    first, second = method_name(REFERENCE), method_name(OTHER)
    reference, other = (standard_named(scores, d_sae, name) for name in (REFERENCE, OTHER))
    if reference is None:
        return SmallestEffect(metric, math.nan, f"no {first} to measure it by")
    if other is not None:
        found = contrast(scores, other, reference, metric)
        if found.enough and abs(found.tested.mean) > found.tested.half:
            value = abs(found.tested.mean) * SHARE_OF_ARCHITECTURES
            return SmallestEffect(metric, value, f"a third of {second} − {first}, {number(found.difference)}")
    room = abs(truth_of(scores, d_sae, metric).value - mean_value(scores, reference, metric))
    if math.isfinite(room) and room > 0:
        return SmallestEffect(metric, room * SHARE_OF_ROOM, f"a tenth of the way from {first} to the truth")
    left = "the truth scores the same" if room == 0 else "no truth was scored"
    return SmallestEffect(metric, math.nan, f"{second} is not shown to differ from {first}, and {left}")
