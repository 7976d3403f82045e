"""The MDL-SAE recipe: of all widths and sparsities that reach a distortion, the one with the shortest description.

After arXiv 2410.11179: fix the distortion, train a grid, coarsen each dictionary's latents until it is reached (which
the eval `description_length` has done), keep the minimum. A setting counts where all its seeds reach the distortion.
The minimum of noisy means favours itself, so how far the next setting lies behind is part of the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unbraid.comparison.intervals import Difference, Interval, difference, t_interval
from unbraid.comparison.stored_scores import Study

EVAL = "description_length"


class Way(NamedTuple):
    """Of counting bits."""

    code: str
    decoder: str

    @property
    def label(self) -> str:
        return f"{self.code}, {self.decoder} decoder"


class Distortion(NamedTuple):
    axis: str
    """fvu, or nats of cross-entropy added."""
    at: float

    @property
    def label(self) -> str:
        return f"FVU {self.at:g}" if self.axis == "fvu" else f"+{self.at:g} nats"


WAYS = tuple(Way(code, decoder) for code in ("factorised", "tree") for decoder in ("without", "with"))
AXES = ("fvu", "nats")


@dataclass(frozen=True)
class Setting:
    """Runs that differ in seed alone."""

    name: str
    method: str
    d_sae: int
    control: bool
    bits: Mapping[int, float]
    """By seed."""
    seeds: int
    """Runs there are, whether they reach the distortion or not."""

    @property
    def reached(self) -> bool:
        return len(self.bits) == self.seeds

    @property
    def mean(self) -> Interval:
        return t_interval(list(self.bits.values()))

    @property
    def label(self) -> str:
        return f"{self.name}, {self.d_sae:,} latents"


@dataclass(frozen=True)
class Pick:
    """The shortest description, and how far the next is behind."""

    best: Setting
    next: Setting | None
    behind: Difference
    """Bits the next needs more."""
    reached: int
    """Settings that reach the distortion."""
    tried: int


def distortions(study: Study) -> list[Distortion]:
    """Those that some run was scored at, by axis, least first."""
    found = {
        Distortion(axis, float(row["params"][axis]))
        for row in described(study)
        for axis in AXES
        if axis in row["params"] and row["kind"] == "measured"
    }
    return sorted(found, key=lambda d: (AXES.index(d.axis), d.at))


def settings(study: Study, way: Way, distortion: Distortion) -> list[Setting]:
    """Every setting, with the bits of the seeds that reach the distortion."""
    bits: dict[tuple[str, int], dict[int, float]] = {}
    for row in described(study):
        params = row["params"]
        if (params.get("code"), params.get("decoder"), params.get(distortion.axis)) == (*way, distortion.at):
            bits.setdefault((row["name"], row["d_sae"]), {})[row["seed"]] = row["value"]
    groups: dict[tuple[str, int], list] = {}
    for run in study.runs:
        groups.setdefault((run.name, run.d_sae), []).append(run)
    return [
        Setting(name, runs[0].method, d_sae, runs[0].control, bits.get((name, d_sae), {}), len({r.seed for r in runs}))
        for (name, d_sae), runs in groups.items()
    ]


def pick(among: Sequence[Setting]) -> Pick | None:
    """The shortest that is no control; None when no setting reaches the distortion with all its seeds."""
    tried = [s for s in among if not s.control]
    found = sorted((s for s in tried if s.reached), key=lambda s: s.mean.mean)
    if not found:
        return None
    best, after = found[0], found[1] if len(found) > 1 else None
    behind = difference(after.bits if after else {}, best.bits)
    return Pick(best, after, behind, len(found), len(tried))


def described(study: Study) -> list[Mapping[str, Any]]:
    return [row for row in study.records if row["eval"] == row["metric"] == EVAL]
