"""Words for contrasts: what a family of comparisons lets one say, corrected for their number.

    better, worse                          the corrected two-sided test leaves out 0
    materially better, materially worse    and the corrected test leaves out the smallest effect of interest
    equivalent                             two one-sided tests: smaller than the smallest effect, either way
    void                                   the side that is ahead is shown to have broken a guard
    undecided                              none of these; with the smallest effect that could have been found

A difference that is real and smaller than the smallest effect of interest is equivalent. The tests of a claim's
primaries are corrected by Holm's method. What is exploratory gets its word from its own interval, with a q-value
(Benjamini and Hochberg) that says how many such words to expect by luck. Equivalence needs no correction where it is
used: "no" takes all of a claim's contrasts to be equivalent or worse.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unbraid.comparison.contrast import Contrast
from unbraid.comparison.intervals import FEWEST_SEEDS, LEVEL, holm, q_values
from unbraid.comparison.power import detectable
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.wording import number, plural

Word = Literal[
    "materially better", "better", "equivalent", "undecided", "worse", "materially worse", "void", "not compared"
]
WORDS: tuple[Word, ...] = (
    "materially better", "better", "equivalent", "undecided", "worse", "materially worse", "void", "not compared",
)  # fmt: skip
GAINS: tuple[Word, ...] = ("materially better", "better")
LOSSES: tuple[Word, ...] = ("materially worse", "worse")
DIFFERENT: tuple[Word, ...] = (*GAINS, *LOSSES)
ALPHA = 1 - LEVEL
Correction = Literal["holm", "q"]


@dataclass(frozen=True)
class Judgement:
    """A contrast and what may be said of it."""

    contrast: Contrast
    word: Word
    smallest: float
    """The smallest effect of interest; NaN where none is known, and nothing is material or equivalent."""
    p: float
    """Two-sided p-value corrected over the family by Holm's method, or q-value."""
    correction: Correction
    family: int
    """Number of comparisons corrected for."""
    reason: str = ""
    """Why the word is no more than it is."""
    doubt: str = ""
    """A guard that the side which is ahead is not shown to have kept: the word is true of the score, and decides no
    claim."""

    @property
    def gained(self) -> bool:
        """True if the method is better, and that counts."""
        return self.word in GAINS and not self.doubt

    @property
    def lost(self) -> bool:
        """True if the method is worse, and that counts."""
        return self.word in LOSSES and not self.doubt

    @property
    def note(self) -> str:
        """Everything there is to say besides the word."""
        luck = f"q {number(self.p)} over {self.family}" if self.correction == "q" and self.word in DIFFERENT else ""
        return "; ".join(filter(None, (self.reason, self.doubt, luck, self.contrast.note if self.contrast.n else "")))

    @property
    def metric(self) -> Quantity:
        """The score."""
        return self.contrast.metric

    @property
    def could_find(self) -> float:
        """The smallest difference that this contrast would have found four times of five, after the correction."""
        return detectable(self.contrast.tested.sd, self.contrast.n, level(self.correction, self.family))


def judge(
    contrasts: Sequence[Contrast], smallest: Mapping[Quantity, float], *, correction: Correction = "holm"
) -> list[Judgement]:
    """Say the word for each contrast of one family."""
    effects = [smallest.get(c.metric, math.nan) for c in contrasts]
    own = [c.tested.p for c in contrasts]
    gain = [c.p_material(effect) for c, effect in zip(contrasts, effects, strict=True)]
    loss = [c.p_material_loss(effect) for c, effect in zip(contrasts, effects, strict=True)]
    if correction == "holm":
        tests, shown = [holm(p) for p in (own, gain, loss)], holm(own)
    else:
        tests, shown = [own, gain, loss], q_values(own)
    family = sum(math.isfinite(c.tested.p) for c in contrasts)
    return [
        judgement(c, effect, [test[i] for test in tests], lambda word, reason, i=i: Judgement(
            contrasts[i], word, effects[i], shown[i], correction, family, reason))
        for i, (c, effect) in enumerate(zip(contrasts, effects, strict=True))
    ]  # fmt: skip


def level(correction: Correction, family: int) -> float:
    """The level at which a family's hardest test is made."""
    return ALPHA / max(1, family) if correction == "holm" else ALPHA


def judgement(
    c: Contrast, smallest: float, tests: Sequence[float], make: Callable[[Word, str], Judgement]
) -> Judgement:
    """The word for one contrast from its p-values: of no difference, of no material gain, of no material loss."""
    p, gain, loss = tests
    said = lambda word, reason="": make(word, reason)
    if not c.n:
        return said("not compared", c.note)
    if not c.enough:
        return said("undecided", f"{plural(c.n, 'paired seed')}, and {FEWEST_SEEDS} are needed for an interval")
    if gain <= ALPHA and p <= ALPHA:
        return said("materially better")
    if loss <= ALPHA and p <= ALPHA:
        return said("materially worse")
    if c.p_equivalent(smallest) <= ALPHA:
        real = f"a real difference, smaller than {number(smallest)}" if p <= ALPHA else ""
        return said("equivalent", real)
    if p <= ALPHA:
        return said("better" if c.gain > 0 else "worse")
    undecided = said("undecided")
    return replace(undecided, reason=why_undecided(undecided))


def why_undecided(found: Judgement) -> str:
    """Say what a contrast without a word could have found, and whether the correction alone withholds one."""
    could = f"it could have found {number(found.could_find)}"
    if found.contrast.tested.p <= ALPHA:
        could = f"its own interval leaves out 0, corrected for {found.family} comparisons it does not; {could}"
    return could if math.isfinite(found.smallest) else f"{could}; no smallest effect of interest is known"
