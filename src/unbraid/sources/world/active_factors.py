"""Samples of a world's factors: roots, then their descendants level by level, then dense factors; and the activations.

    x = offset + sum_i z_i d_i + noise
    P(active factors) = co_occurrence P(as forest and copula have it) + (1 - co_occurrence) P(each on its own)

Both parts have the same marginals, so the covariance of any two factors is co_occurrence times the forest's.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from unbraid.sources.world.copula import Copula, Places, independent
from unbraid.sources.world.forest import Forest
from unbraid.sources.world.magnitudes import Magnitudes, folded_normal
from unbraid.sources.world.manifolds import Manifolds

ROWS = 16_384
"""Rows drawn at once, at most."""
ACTIVE = 2**21
"""Active factors drawn at once, about: 16 MB a column of them."""


class ActiveFactors(NamedTuple):
    """Active factors of some rows, row by row."""

    rows: Int[Tensor, " active"]
    factors: Int[Tensor, " active"]
    magnitudes: Float[Tensor, " active"]
    points: Float[Tensor, "on_manifolds 3"]
    """The point on its manifold of each active factor that is a manifold, in the same order."""


@dataclass(frozen=True, eq=False)
class FactorSampler:
    """The sampler of active factors: which fire in each row, and at what magnitude."""

    forest: Forest
    copula: Copula
    """The joint distribution of the forest's roots."""
    sparse: Float[Tensor, " sparse"]
    """Probabilities of the forest's factors."""
    dense: Float[Tensor, " dense"]
    """Probabilities of the dense factors, which come after."""
    co_occurrence: float
    """Share of rows that follow copula and forest; in the others factors are independent, as in the twin."""
    magnitudes: Magnitudes
    dense_spread: float
    manifolds: Manifolds

    @cached_property
    def at_once(self) -> int:
        """The number of rows to draw at once so that memory stays bounded."""
        active = float(self.sparse.sum() + self.dense.sum())
        return max(1, min(ROWS, int(ACTIVE / active)))

    def draw(self, count: int, rng: torch.Generator) -> ActiveFactors:
        """Return the active factors of `count` rows."""
        factors = len(self.sparse) + len(self.dense)
        found = [*self._draw_sparse(count, rng), self._draw_dense(count, rng)]
        cells = torch.cat([rows * factors + which for rows, which in found]).sort().values
        rows, which = cells // factors, cells % factors
        points = self.manifolds.draw(which[self.manifolds.among(which)], rng)
        return ActiveFactors(rows, which, self._draw_magnitudes(which, rng), points)

    def _draw_sparse(self, count: int, rng: torch.Generator) -> list[Places]:
        if self.co_occurrence == 0:
            return [independent(self.sparse, count, rng)]
        if self.co_occurrence == 1:
            return self._draw_forest(count, rng)
        together = torch.rand(count, generator=rng) < self.co_occurrence
        planted, others = together.nonzero().squeeze(1), (~together).nonzero().squeeze(1)
        # Of a few rows all may be of one kind.
        found = [(planted, places) for places in (self._draw_forest(len(planted), rng) if len(planted) else [])]
        found += [(others, independent(self.sparse, len(others), rng))] if len(others) else []
        return [(kind[rows], which) for kind, (rows, which) in found]

    def _draw_forest(self, count: int, rng: torch.Generator) -> list[Places]:
        rows, roots = self.copula.fire(count, rng)
        return self.forest.descend(rows, self.forest.tops[roots], rng)

    def _draw_dense(self, count: int, rng: torch.Generator) -> Places:
        rows, which = (torch.rand(count, len(self.dense), generator=rng) < self.dense).nonzero(as_tuple=True)
        return rows, which + len(self.sparse)

    def _draw_magnitudes(self, factors: Tensor, rng: torch.Generator) -> Tensor:
        z = self.magnitudes.draw(len(factors), rng)
        dense = (factors >= len(self.sparse)).nonzero().squeeze(1)
        return z.index_copy(0, dense, folded_normal(len(dense), self.dense_spread, rng))


def add_factors(
    x: Float[Tensor, "count d_in"],
    active: ActiveFactors,
    directions: Float[Tensor, "factors d_in"],
    manifolds: Manifolds,
) -> None:
    """Add sum_i z_i d_i to each row in place, without the rows x factors matrix."""
    curved = manifolds.among(active.factors)
    ends = torch.bincount(active.rows, minlength=len(x)).cumsum(0)
    # 32-bit indices: the kernel for 64-bit ones takes three times as long.
    x += embedding_bag(
        active.factors.int(),
        directions,
        torch.cat([ends.new_zeros(1), ends[:-1]]).int(),
        per_sample_weights=active.magnitudes * ~curved,
        mode="sum",
    )
    if len(active.points):
        vectors = manifolds.vectors(active.factors[curved], active.points)
        x.index_add_(0, active.rows[curved], vectors * active.magnitudes[curved].unsqueeze(1))
