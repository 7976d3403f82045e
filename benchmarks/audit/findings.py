"""What the audit found of each score on a testbed, and the word that follows from it.

trust      it separates the trained from the untrained, no step of training goes the wrong way, it orders
           dictionaries as some known truth does (interval above 0), and no damage raises it
with care  it fails something of this, or that could not be known
not        it does not separate them, or it orders against every known truth (intervals below 0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.audit.damage_seen import Change, changes
from benchmarks.audit.panel import Kind
from benchmarks.audit.reseed_noise import Noise, noise
from benchmarks.audit.rows import Rows
from benchmarks.audit.training_separation import Rise, rise
from benchmarks.audit.truth_correlation import Agreement, agreements, tables

SEPARATES = 3.0
"""Separation of the trained from the untrained, in standard deviations, that is asked for."""
ALL: tuple[Kind, ...] = ("equal", "varied")
"""Dictionaries of every sparsity and width."""
ALIKE: tuple[Kind, ...] = ("equal",)
"""Dictionaries of one sparsity and width."""
Word = Literal["trust", "with care", "not"]


@dataclass(frozen=True)
class Finding:
    """What was found of one score on one testbed."""

    score: str
    noise: Noise
    truth: Mapping[str, Agreement]
    """Agreement with each known truth but itself, over all sparsities and widths that were trained."""
    alike: Mapping[str, Agreement]
    """The same over dictionaries of one sparsity and width."""
    rise: Rise
    damage: Mapping[str, Change]
    """By kind of damage; empty where nothing was damaged."""

    @property
    def agrees(self) -> bool:
        """True if it orders dictionaries as a known truth does."""
        return any(one.low > 0 for one in self.truth.values())

    @property
    def opposes(self) -> bool:
        """True if it orders them against every known truth."""
        return bool(self.truth) and all(one.high < 0 for one in self.truth.values())

    @property
    def word(self) -> Word:
        if self.rise.whole < SEPARATES or self.opposes:
            return "not"
        fooled = any(change.word == "fooled" for change in self.damage.values())
        rises = self.rise.whole >= SEPARATES and self.rise.rises
        return "trust" if rises and self.agrees and not fooled else "with care"


def findings(rows: Rows, truths: Sequence[str], ceiling: str = "", scores: Sequence[str] = ()) -> list[Finding]:
    """Work out what was found of each score, by name. scores: of which; none: all."""
    wanted = list(scores) or sorted(rows.better)
    known = [truth for truth in truths if truth in rows.better]
    varied, equal = tables(rows, ALL), tables(rows, ALIKE)
    alike = agreements(equal, wanted, known, rows.better)
    every = agreements(varied, wanted, known, rows.better) if varied else alike
    found = []
    for score in wanted:
        own = noise(rows, score)
        damage = changes(rows, score, own.of_method, ceiling) if ceiling else {}
        others = [truth for truth in known if truth != score]
        found.append(
            Finding(
                score, own, {t: every[score, t] for t in others}, {t: alike[score, t] for t in others},
                rise(rows, score), damage,
            )
        )  # fmt: skip
    return found
