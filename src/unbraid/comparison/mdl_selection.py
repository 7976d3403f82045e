"""Selection by description length: of all widths and sparsities that reach a distortion, the shortest description.

The MDL-SAE recipe (arXiv 2410.11179): fix the distortion, train a grid, coarsen each dictionary's latents until the
distortion is reached (which the eval `description_length` did), keep the minimum. A setting counts where all its seeds
reach the distortion. The minimum of noisy means is biased, so the distance to the next setting is part of the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unbraid.comparison.intervals import Interval, Paired, paired_by_seed, t_interval
from unbraid.comparison.stored_scores import StoredScores

EVAL = "description_length"


class CodingScheme(NamedTuple):
    """The way in which bits are counted: the code, with or without the decoder."""

    code: str
    decoder: str

    @property
    def label(self) -> str:
        """The scheme as figures and tables name it."""
        return f"{self.code}, {self.decoder} decoder"


class Distortion(NamedTuple):
    """A limit on the error of rounded codes."""

    axis: str
    """fvu, or nats: cross-entropy added per token."""
    at: float

    @property
    def label(self) -> str:
        """The distortion as figures and tables name it."""
        return f"FVU {self.at:g}" if self.axis == "fvu" else f"+{self.at:g} nats"


CODING_SCHEMES = tuple(
    CodingScheme(code, decoder) for code in ("factorised", "tree") for decoder in ("without", "with")
)
AXES = ("fvu", "nats")


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in seed, with their bits at one distortion."""

    name: str
    method: str
    d_sae: int
    control: bool
    bits: Mapping[int, float]
    """Bits per token, by seed, of the seeds that reach the distortion."""
    seeds: int
    """Number of seeds, whether they reach the distortion or not."""

    @property
    def reached(self) -> bool:
        """True if all seeds reach the distortion."""
        return len(self.bits) == self.seeds

    @property
    def mean(self) -> Interval:
        """The mean bits per token and its interval."""
        return t_interval(list(self.bits.values()))

    @property
    def label(self) -> str:
        """The setting's name and width."""
        return f"{self.name}, {self.d_sae:,} latents"


@dataclass(frozen=True)
class Pick:
    """The setting with the shortest description, and its distance to the next."""

    best: Setting
    next: Setting | None
    behind: Paired
    """Bits per token that the next setting needs more."""
    reached: int
    """Number of settings that reach the distortion."""
    tried: int
    """Number of settings compared."""


def distortions(stored: StoredScores) -> list[Distortion]:
    """The distortions at which some run was scored, by axis, in ascending order."""
    found = {
        Distortion(axis, float(row["params"][axis]))
        for row in description_length_rows(stored)
        for axis in AXES
        if axis in row["params"] and row["kind"] == "measured"
    }
    return sorted(found, key=lambda d: (AXES.index(d.axis), d.at))


def settings(stored: StoredScores, scheme: CodingScheme, distortion: Distortion) -> list[Setting]:
    """All settings, with the bits of the seeds that reach the distortion."""
    bits: dict[tuple[str, int], dict[int, float]] = {}
    for row in description_length_rows(stored):
        params = row["params"]
        if (params.get("code"), params.get("decoder"), params.get(distortion.axis)) == (*scheme, distortion.at):
            bits.setdefault((row["name"], row["d_sae"]), {})[row["seed"]] = row["value"]
    groups: dict[tuple[str, int], list] = {}
    for run in stored.runs:
        groups.setdefault((run.name, run.d_sae), []).append(run)
    return [
        Setting(name, runs[0].method, d_sae, runs[0].control, bits.get((name, d_sae), {}), len({r.seed for r in runs}))
        for (name, d_sae), runs in groups.items()
    ]


def pick(among: Sequence[Setting]) -> Pick | None:
    """Pick the shortest setting that is no control; None when none reaches the distortion with all its seeds."""
    tried = [s for s in among if not s.control]
    found = sorted((s for s in tried if s.reached), key=lambda s: s.mean.mean)
    if not found:
        return None
    best, after = found[0], found[1] if len(found) > 1 else None
    behind = paired_by_seed(after.bits if after else {}, best.bits)
    return Pick(best, after, behind, len(found), len(tried))


def description_length_rows(stored: StoredScores) -> list[Mapping[str, Any]]:
    """The rows of the metric description_length."""
    return [row for row in stored.records if row["eval"] == row["metric"] == EVAL]
