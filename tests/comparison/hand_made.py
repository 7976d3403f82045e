"""Hand-made scores: each method's values as a function of seed and L0, arranged as stored runs are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from unbraid.comparison.committed import quantity_of, scores_of_rows
from unbraid.comparison.contrast import Contrast
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores

D_SAE = 8
F1, ABSORPTION, FVU = (quantity_of(short) for short in ("f1", "absorption", "fvu"))
Values = Callable[[int, float], Mapping[str, float | None]]
"""By seed and requested L0, scores by short name; no scores: no run."""


def arranged(
    methods: Mapping[str, Values], *, seeds: Iterable[int] = range(3), l0: Iterable[float] = (2.0, 4.0, 8.0),
    controls: Iterable[str] = ("untrained", "truth", "pca"),
) -> Scores:  # fmt: skip
    """Arrange these methods' scores; a run reaches the L0 that was requested, unless it scores another."""
    rows = []
    for name, values in methods.items():
        for seed in seeds:
            for asked in l0:
                about = {"world": "hand", "method": name, "asked": asked, "d_sae": D_SAE, "seed": seed, "l0": asked}
                if found := values(seed, asked):
                    rows.append(about | {"control": name in set(controls)} | dict(found))
    return scores_of_rows(rows)


def method(scores: Scores, name: str) -> Method:
    """The method of this name."""
    return next(m for m in scores.methods if m.name == name)


def contrast_of(gains: Iterable[float], metric=F1, own: str = "own", other: str = "other") -> Contrast:
    """A contrast with these gains by seed."""
    values = list(gains)
    ours = {seed: metric.sign * gain for seed, gain in enumerate(values)}
    return Contrast(metric, "L0", own, other, (4.0,), ours, dict.fromkeys(ours, 0.0))


def with_level(scores: Scores, quantity: Quantity, value: float) -> Scores:
    """Give every run a value of one more quantity."""
    runs = [run.run for method in scores.methods for run in method.runs]
    values = {**scores.values, quantity: dict.fromkeys(runs, value)}
    return replace(scores, quantities=(*scores.quantities, quantity), values=values)
