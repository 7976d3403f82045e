"""A term over several testbeds: its gain in smallest effects of interest, and how often it is better, of a claim."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.aggregate import Estimated, over_testbeds
from unbraid.comparison.contrast import Contrast
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.names import method_name
from unbraid.comparison.verdict import Verdict
from unbraid.comparison.wording import listed


@dataclass(frozen=True)
class Over:
    """One term by one score over all testbeds that have both."""

    method: str
    score: str
    identifier: str
    gain: str
    probability: str
    """Both with their intervals; or why there are none."""


def over_testbeds_of(found: Sequence[tuple[str, Verdict]]) -> list[Over]:
    """Aggregate each term of a claim by each primary that counts on two testbeds or more.

    found: by testbed, its title and what it says of the claim.
    """
    pairs: dict[tuple[str, str, str], dict[str, tuple[Contrast, float]]] = {}
    for title, said in found:
        for j in (j for term in said.terms for j in term.primaries):
            c = j.contrast
            if c.enough and j.smallest > 0 and math.isfinite(c.gain):
                pairs.setdefault((c.method, c.other, j.metric.metric), {})[title] = (c, j.smallest)
    return [over(by_testbed) for by_testbed in pairs.values() if len(by_testbed) > 1]


def over(by_testbed: dict[str, tuple[Contrast, float]]) -> Over:
    """Aggregate one term by one score."""
    first = next(iter(by_testbed.values()))[0]
    names = method_name(first.method), first.metric.name
    where = f"{first.method} against {first.other}, by {first.metric.metric}: {listed(list(by_testbed))}"
    seeds = set.intersection(*(set(c.own_by_seed) for c, _ in by_testbed.values()))
    if len(seeds) < FEWEST_SEEDS:
        return Over(*names, where, f"not computed: the testbeds share {len(seeds)} seeds", "")
    contrasts = {title: c for title, (c, _) in by_testbed.items()}
    try:
        told = over_testbeds(contrasts, {title: smallest for title, (_, smallest) in by_testbed.items()})
    except ImportError as error:
        return Over(*names, where, f"not computed: {error}", "")
    return Over(*names, where, shown(told.gain), f"P(better) {shown(told.probability)}")


def shown(estimated: Estimated) -> str:
    """A number with the ends of its interval."""
    return f"{estimated.value:.2f} [{estimated.low:.2f}, {estimated.high:.2f}]".replace("-", "−")
