"""Samples of active roots: independent, or in groups by a Gaussian copula, without a number for every root of a row.

    root i fires where  sqrt(rho) s_g(i) + sqrt(1 - rho) e_i > b_i,   s_g = l_g . c,   |l_g| = 1,   b_i = -Phi^-1(p_i)

with c and e normal, s_g what group g has in common. Given s, roots are independent, and root i fires where a Poisson
process of rate -log(1 - P(i | s)) has a point. Rows of similar s_g are binned; points are drawn at the rate of a bin's
upper edge and thinned to the true one (Lewis & Shedler 1979): exact, at a cost that follows the number of active roots
and not the number of roots.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

EDGES = torch.linspace(-3, 3, 31)
"""Edges of the bins of s; the last bin ends at its largest s."""
MOST = 16.0
"""Largest rate: 1 - exp(-16) is 1 to single precision."""

Places = tuple[Int[Tensor, " active"], Int[Tensor, " active"]]
"""Rows, and the items active in them; ordered, each pair once."""


def independent(probabilities: Float[Tensor, " items"], count: int, rng: torch.Generator) -> Places:
    """Return the items active in `count` rows, each with its own probability below 1, independent of one another."""
    points = torch.poisson(count * rate(probabilities), generator=rng).long()
    items = torch.repeat_interleave(torch.arange(len(probabilities)), points)
    return distinct(torch.randint(count, (len(items),), generator=rng), items, len(probabilities))


@dataclass(frozen=True, eq=False)
class Copula:
    """The joint distribution of the roots: those of a group fire together."""

    probabilities: Float[Tensor, " roots"]
    correlation: float
    """Share of a root's variance that it has in common with its group, in [0, 1)."""
    groups: Int[Tensor, " roots"]
    """The group of each root."""
    loadings: Float[Tensor, "groups rank"]
    """Unit rows: what each group has in common with the others."""

    def fire(self, count: int, rng: torch.Generator) -> Places:
        """Return the roots active in `count` rows."""
        if self.correlation == 0:
            return independent(self.probabilities, count, rng)
        common = self.loadings @ torch.randn(self.loadings.shape[1], count, generator=rng)
        cells = Cells.of(common)
        ceilings = rate(self.conditional(cells.tops.unsqueeze(1), torch.arange(len(self.groups))))
        bin_of_root = self.groups * cells.bins + torch.arange(cells.bins).unsqueeze(1)
        points = torch.poisson(ceilings * cells.counts[bin_of_root], generator=rng).long().flatten()
        # Each point: a root, a bin of its group, and a row in that bin.
        which = torch.repeat_interleave(torch.arange(len(points)), points)
        root = which % len(self.groups)
        group, row = cells.draw(bin_of_root.flatten()[which], rng)
        draw = torch.rand(len(which), generator=rng) * ceilings.flatten()[which]
        kept = draw < rate(self.conditional(common[group, row], root))
        return distinct(row[kept], root[kept], len(self.groups))

    def conditional(self, common: Float[Tensor, "*#points"], root: Int[Tensor, " points"]) -> Float[Tensor, "*points"]:
        """Return P(root | s of its group)."""
        slope = math.sqrt(self.correlation / (1 - self.correlation))
        return torch.special.ndtr(slope * common - self._bounds[root])

    @cached_property
    def _bounds(self) -> Float[Tensor, " roots"]:
        return (-torch.special.ndtri(self.probabilities) / math.sqrt(1 - self.correlation)).float()


@dataclass(frozen=True, eq=False)
class Cells:
    """Pairs (group, row), ordered by group and by bin of s."""

    order: Int[Tensor, " cells"]
    """group * rows + row."""
    counts: Int[Tensor, " all_bins"]
    """Cells in each bin of each group."""
    tops: Float[Tensor, " bins"]
    """The largest s of each bin."""
    rows: int

    @classmethod
    def of(cls, common: Float[Tensor, "groups rows"]) -> "Cells":
        tops = torch.cat([EDGES, torch.maximum(common.max(), EDGES[-1]).unsqueeze(0)])
        groups = torch.arange(len(common), dtype=torch.int32).unsqueeze(1)
        keys = (torch.bucketize(common, EDGES, out_int32=True) + groups * len(tops)).flatten()
        counts = torch.bincount(keys, minlength=len(common) * len(tops))
        return cls(keys.argsort(stable=True), counts, tops, common.shape[1])

    @property
    def bins(self) -> int:
        return len(self.tops)

    def draw(self, bins: Int[Tensor, " points"], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a random (group, row) of each of these bins."""
        starts = self.counts.cumsum(0) - self.counts
        place = torch.rand(len(bins), generator=rng, dtype=torch.float64).mul_(self.counts[bins]).long()
        cell = self.order[starts[bins] + place]
        return cell // self.rows, cell % self.rows


def rate(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the rate at which a Poisson process has a point in unit time with probability p."""
    return -torch.log1p(-p).clamp(min=-MOST)


def distinct(rows: Int[Tensor, " points"], items: Int[Tensor, " points"], count: int) -> Places:
    """Return each (row, item) once, in order. `count` is the number of items."""
    cells = (rows * count + items).sort().values.unique_consecutive()
    return cells // count, cells % count
