"""Simulated studies: scores of a base, its terms, standard SAEs and controls, of which the truth is known.

    y[method, l0, seed] = level + slope log2(l0 / 4) + shift[method] + u[seed] + v[method, seed] + e[method, l0, seed]

u is shared by all methods of a seed (world, data order), so pairing removes it; v and e are a method's own. Everything
is in units of one number a score: the standard deviation of the paired difference D of two methods, averaged over L0.
Rows are those of `benchmarks.judge`, and become scores by its `scores_of_rows`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unbraid.comparison.committed import BASELINE, LOWER, Row, scores_of_rows
from unbraid.comparison.scores import Scores

D_SAE = 384
Noise = Literal["normal", "t3", "skewed up", "skewed down"]
Shifts = Mapping[str, float]
"""By score, a shift in spreads, positive where it is better."""


@dataclass(frozen=True)
class Level:
    """A score's mean on the base, and the standard deviation of paired differences by seed."""

    mean: float
    spread: float


FOREST = {
    "f1": Level(0.5, 0.01),
    "absorption": Level(0.3, 0.02),
    "fvu": Level(0.07, 0.001),
    "l2_ratio": Level(0.96, 0.001),
    "recall_rarest": Level(0.5, 0.03),
    "recall_child": Level(0.7, 0.025),
}
"""Levels and spreads about as committed rows of the forest have them (docs/results/objectives.json), but for more
absorption, so that a gain has room."""
LANGUAGE_RARE = Level(0.09, 0.028)
"""Recall of the rarest factors as committed rows of the language have it (docs/results/comparison.json)."""
STANDARD: dict[str, Shifts] = {
    BASELINE: {},
    "matryoshka": {"f1": -6, "absorption": 6, "recall_child": 2, "fvu": -10},
    "topk": {"f1": -3, "fvu": -1},
}
"""Standard SAEs, with the two known facts that the gate asks for."""
CONTROLS: dict[str, Shifts] = {
    "untrained": {"f1": -20, "absorption": -20, "fvu": -500, "recall_rarest": -10},
    "truth": {"f1": 20, "absorption": 14},
}
SLOPE = 2.0
"""Rise of a score by doubling of L0, in spreads."""
SHARED = 2.0
"""Standard deviation of what all methods of a seed share, in spreads."""
MISSED = 0.01
"""Relative standard deviation of the L0 that a run reaches."""


@dataclass(frozen=True)
class Study:
    """The truth and the design of a simulated study."""

    terms: int = 1
    seeds: int = 10
    gains: Mapping[str, Shifts] = field(default_factory=dict)
    """By method, shifts by score; of methods named here nothing else shifts. Terms are term-1, term-2, …"""
    levels: Mapping[str, Level] = field(default_factory=lambda: FOREST)
    l0: Sequence[float] = (2.0, 4.0, 8.0)
    noise: Noise = "normal"
    """The law of a term's own noise; of any but the normal law the base has none, and D follows the law itself."""

    alone: bool = False
    """Only the base and its terms are drawn: for what asks no more."""

    @property
    def methods(self) -> dict[str, Shifts]:
        """Every method with its shifts."""
        if self.alone:
            return {BASELINE: {}} | {f"term-{i + 1}": self.gains.get(f"term-{i + 1}", {}) for i in range(self.terms)}
        found: dict[str, Shifts] = STANDARD | {f"term-{i + 1}": {} for i in range(self.terms)} | CONTROLS
        return found | dict(self.gains)


def simulated(study: Study, rng: np.random.Generator) -> Scores:
    """Draw one study's scores."""
    return scores_of_rows(rows(study, rng))


def rows(study: Study, rng: np.random.Generator) -> list[Row]:
    """Draw one study's rows."""
    shared = {score: SHARED * rng.standard_normal(study.seeds) for score in study.levels}
    found: list[Row] = []
    for method, shifts in study.methods.items():
        l0 = (4.0,) if method == "truth" else study.l0
        reached = np.array(l0) * (1 + MISSED * rng.standard_normal((study.seeds, len(l0))))
        values = {
            score: level.mean + level.spread * (-1 if score in LOWER else 1) * (
                SLOPE * np.log2(reached / 4) + shifts.get(score, 0.0) + shared[score][:, None]
                + noise(study, method, len(l0), rng))
            for score, level in study.levels.items()
        }  # fmt: skip
        for seed in range(study.seeds):
            for i, asked in enumerate(l0):
                about = {"world": "simulated", "method": method, "asked": asked, "d_sae": D_SAE, "seed": seed}
                scores = {score: float(of[seed, i]) for score, of in values.items()}
                found.append(about | {"control": method in CONTROLS, "l0": float(reached[seed, i])} | scores)
    return found


def noise(study: Study, method: str, levels: int, rng: np.random.Generator) -> np.ndarray:
    """A method's own noise by seed and level, in spreads: D's variance is 1, half of it by seed and half by cell."""
    if study.noise == "normal":
        of_seed, of_cell = rng.standard_normal((study.seeds, 1)), rng.standard_normal((study.seeds, levels))
        return of_seed / 2 + of_cell * np.sqrt(levels) / 2
    if method == BASELINE:
        return np.zeros((study.seeds, levels))
    if study.noise == "t3":
        of_seed = rng.standard_t(3, (study.seeds, 1)) / np.sqrt(3)
    else:
        of_seed = (rng.exponential(size=(study.seeds, 1)) - 1) * (1 if study.noise == "skewed up" else -1)
    return np.repeat(of_seed, levels, axis=1)
