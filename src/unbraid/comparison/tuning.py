"""Tuning: the setting of each method that does best on calibration seeds, of as many for every method.

    chosen = the setting with the largest mean over primaries of (gain over its base / smallest effect of interest)
             among those whose FVU is at most fvu_cap times its base's

A base is compared with itself as its study gives it. Where no setting keeps to the cap, the one of lowest FVU is taken,
and said. The dose that a term reaches at its chosen setting is kept with it: a null at a dose that moves nothing says
nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.contrast import contrast
from unbraid.comparison.quantities import AXES, Quantity
from unbraid.comparison.scores import Method, Scores, dose
from unbraid.comparison.wording import number
from unbraid.config.hints import first_few
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.tuning import Tuning


@dataclass(frozen=True)
class Choice:
    """The setting chosen for a method, and what it was chosen by."""

    method: str
    setting: Tuning
    worth: float
    """Mean gain over primaries, in smallest effects of interest."""
    fvu_ratio: float
    """FVU as a multiple of the base's."""
    dose: float
    """The dose that its term reached; NaN for bases, and where the eval `dose` was not run."""
    tried: int
    """Number of settings compared."""
    note: str = ""


def choose(
    scores: Scores, study: Factorial, primaries: Sequence[Quantity], smallest: Mapping[Quantity, float], fvu_cap: float
) -> dict[str, Choice]:
    """Choose the setting of every method of a study from the scores of its calibration.

    Raises ValueError when a method was not tried at all its settings.
    """
    by_name = {m.short: m for role in ("standard", "compared") for m in scores.with_role(role, study.d_sae)}
    missed = {run.method for run in scores.missed}
    designs, tunings = study.designs, study.tunings()
    lacking = [
        name
        for method, settings in tunings.items()
        for setting in settings
        if (name := study.experiment_name(method, setting)) not in by_name and name not in missed
    ]
    if lacking:
        raise ValueError(
            f"the calibration lacks {first_few(lacking)}: run `unbraid study NAME --calibrate` to its "
            "end, and give all of its runs"
        )
    found = {}
    for method, settings in tunings.items():
        base = by_name.get(designs[method].alone)
        if base is None:
            raise ValueError(f"the calibration lacks {designs[method].alone} as the study gives it, to compare with")
        tried = [(s, by_name[name]) for s in settings if (name := study.experiment_name(method, s)) in by_name]
        if not tried:
            raise ValueError(f"{method} missed its target L0 at every setting tried; train longer")
        found[method] = choice(scores, method, base, tried, primaries, smallest, fvu_cap)
    return found


def choice(
    scores: Scores, method: str, base: Method, tried: Sequence[tuple[Tuning, Method]], primaries: Sequence[Quantity],
    smallest: Mapping[Quantity, float], fvu_cap: float,
) -> Choice:  # fmt: skip
    """Choose among the settings of one method."""
    fvu = scores.find(dict(AXES)["FVU"])
    ratios = [ratio(scores, m, base, fvu) for _, m in tried]
    worths = [worth(scores, m, base, primaries, smallest) for _, m in tried]
    capped = [i for i, r in enumerate(ratios) if r <= fvu_cap]
    allowed = [i for i in capped if math.isfinite(worths[i])]
    note = ""
    if allowed:
        best = max(allowed, key=lambda i: worths[i])
    else:
        best = min(range(len(tried)), key=lambda i: (math.isnan(ratios[i]), ratios[i]))
        why = f"no setting keeps FVU within {number(fvu_cap)} of its base's"
        note = f"{'none that keeps to the cap has every primary' if capped else why}; this one has the lowest FVU"
    setting, chosen = tried[best]
    if len(tried) > 1 and at_the_end(setting, [s for s, _ in tried]):
        note = "; ".join(filter(None, (note, "at the end of what was tried: the best may lie beyond")))
    return Choice(method, setting, worths[best], ratios[best], dose(scores, chosen), len(tried), note)


def at_the_end(setting: Tuning, tried: Sequence[Tuning]) -> bool:
    """True if a setting is the smallest or largest of those tried of its field."""
    size = lambda s: s.strength if s.strength is not None else s.factor
    alike = [size(s) or 1.0 for s in tried if s.field == setting.field]
    return len(alike) > 1 and (size(setting) or 1.0) in (min(alike), max(alike))


def ratio(scores: Scores, method: Method, base: Method, fvu: Quantity | None) -> float:
    """FVU of a method as a multiple of its base's; NaN where it was not scored."""
    if fvu is None:
        return math.nan
    found = contrast(scores, method, base, fvu)
    return found.value / found.other_value if found.n and found.other_value > 0 else math.nan


def worth(
    scores: Scores, method: Method, base: Method, primaries: Sequence[Quantity], smallest: Mapping[Quantity, float]
) -> float:
    """Mean gain over its base by the primaries, each in its smallest effect of interest; 0 for the base itself, NaN for
    one that lacks a primary."""
    if method.short == base.short:
        return 0.0
    return math.fsum(contrast(scores, method, base, q).gain / smallest[q] for q in primaries) / len(primaries)
