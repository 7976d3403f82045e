"""Sums over all pairs of latents, without a matrix of latents by latents.

    sum_ij |C_ij|^2 = |A_c A_c'|^2 / (n - 1)^2,   C_ij = A_i,c' A_j,c / (n - 1)   (r x r, columns centred over n rows)

The plug-in is far too large when latents outnumber rows. With two halves of the rows, A and B, it is unbiased:

    sum_(i != j) |C_ij|^2  ~  |A_c B_c'|^2 / ((n_A - 1)(n_B - 1)) - sum_i <C_ii of A, C_ii of B>

Columns are sparse and stay so: centring is done on the n_A x n_B products. A product sums, for rare columns, over the
pairs of their entries; for the few columns with `FREQUENT` entries in both halves, rows of a dense table.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from unbraid.dictionary.codes import Codes, pair_products, starts, unrolled
from unbraid.system.devices import sent

FREQUENT = 16
"""Entries from which a column is cheaper to multiply as a row of a table than pair by pair (measured on CPU)."""


@dataclass(frozen=True)
class SparseColumns:
    """Features of some latents in some rows: r numbers where a latent is active, zeros elsewhere."""

    values: Float[Tensor, "nnz r"]
    rows: Int[Tensor, " nnz"]
    """Ascending."""
    places: Int[Tensor, " nnz"]
    """The place in `kept` of each entry's latent."""
    batch: int
    kept: Int[Tensor, " width"]
    """The latents that have a column."""

    @property
    def latents(self) -> Int[Tensor, " nnz"]:
        return self.kept[self.places]

    def mapped(self, features: Callable[[Float[Tensor, "nnz r"], Int[Tensor, " nnz"]], Tensor]) -> "SparseColumns":
        """Return the same entries with features of (values, latents) instead."""
        return replace(self, values=features(self.values, self.latents))

    def firings(self) -> Int[Tensor, " width"]:
        return torch.bincount(self.places, minlength=len(self.kept))

    def restricted(self, to: Int[Tensor, " fewer"]) -> "SparseColumns":
        """The columns of some of the kept, by place."""
        place = torch.full_like(self.kept, -1).index_copy_(0, to, torch.arange(len(to), device=to.device))
        places = place[self.places]
        held = (places >= 0).nonzero().squeeze(1)
        return SparseColumns(self.values[held], self.rows[held], places[held], self.batch, self.kept[to])

    def table(self, values: Float[Tensor, " nnz"]) -> Float[Tensor, "width rows"]:
        """One number an entry, where it belongs in a dense row of each latent. Differentiable."""
        return values.new_zeros(len(self.kept), self.batch).index_put_((self.places, self.rows), values)

    def means(self) -> Float[Tensor, "width r"]:
        return self._sums(self.values) / self.batch

    def covariances(self) -> Float[Tensor, "width r r"]:
        """Covariance of each latent's own features."""
        means, r = self.means(), self.values.shape[1]
        squares = (self.values.unsqueeze(2) * self.values.unsqueeze(1)).flatten(1)
        second = self._sums(squares).view(-1, r, r)
        return (second - self.batch * means.unsqueeze(2) * means.unsqueeze(1)) / (self.batch - 1)

    def _sums(self, values: Float[Tensor, "nnz c"]) -> Float[Tensor, "width c"]:
        return values.new_zeros(len(self.kept), values.shape[1]).index_add(0, self.places, values)


def rows_of(z: Codes, order: Int[Tensor, " rows"]) -> SparseColumns:
    """All latents' values in the given rows of a code, renumbered in that order."""
    values, rows, latents = z.entries()
    place = torch.full((z.batch,), -1, device=rows.device)
    place[order] = torch.arange(len(order), device=rows.device)
    fresh = place[rows]
    held = (fresh >= 0).nonzero().squeeze(1)
    held = held[fresh[held].argsort(stable=True)]
    kept = torch.arange(z.d_sae, device=rows.device)
    return SparseColumns(values[held].unsqueeze(1), fresh[held], latents[held], len(order), kept)


def split_in_halves(
    z: Codes, rows: int, kept: Int[Tensor, " width"], rng: torch.Generator
) -> tuple[SparseColumns, SparseColumns]:
    """The kept latents in two random halves of `rows` rows."""
    order = sent(torch.randperm(z.batch, generator=rng)[:rows], z.values.device)
    half = len(order) // 2
    return rows_of(z, order[:half]).restricted(kept), rows_of(z, order[half : 2 * half]).restricted(kept)


def products(a: SparseColumns, b: SparseColumns) -> Float[Tensor, "rows_a rows_b"]:
    """Inner products of every row of one with every row of the other."""
    frequent = torch.minimum(a.firings(), b.firings()) >= FREQUENT
    wide, rare = frequent.nonzero().squeeze(1), (~frequent).nonzero().squeeze(1)
    tables = a.restricted(wide), b.restricted(wide)
    return _Products.apply(tables[0].values, tables[1].values, *tables) + _pairwise(
        a.restricted(rare), b.restricted(rare)
    )


def _pairwise(a: SparseColumns, b: SparseColumns) -> Float[Tensor, "rows_a rows_b"]:
    """Entry by entry of equal columns."""
    by_column, counts = b.places.argsort(stable=True), b.firings()
    repeats = counts[a.places]
    left, within = unrolled(repeats)
    right = by_column[starts(counts)[a.places[left]] + within]
    found = (a.values.index_select(0, left) * b.values.index_select(0, right)).sum(1)
    cells = a.rows[left] * b.batch + b.rows[right]
    return found.new_zeros(a.batch * b.batch).index_add(0, cells, found).view(a.batch, b.batch)


def centred_products(a: SparseColumns, b: SparseColumns) -> Float[Tensor, "rows_a rows_b"]:
    """Products as above, of columns centred over their own rows."""
    means_a, means_b = a.means(), b.means()
    across, along = _dot(a, means_b), _dot(b, means_a)
    return products(a, b) - across.unsqueeze(1) - along + (means_a * means_b).sum()


def _dot(columns: SparseColumns, vector: Float[Tensor, "width r"]) -> Float[Tensor, " rows"]:
    found = (columns.values * vector[columns.places]).sum(1)
    return found.new_zeros(columns.batch).index_add(0, columns.rows, found)


def split_half(a: SparseColumns, b: SparseColumns) -> Float[Tensor, ""]:
    """Unbiased sum over ordered pairs i != j of |C_ij|^2; may be negative."""
    total = centred_products(a, b).square().sum() / ((a.batch - 1) * (b.batch - 1))
    return total - (a.covariances() * b.covariances()).sum()


class _Products(torch.autograd.Function):
    """Row by row, the sum over its entries of value * the other's column."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, a: SparseColumns, b: SparseColumns) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.columns = a, b
        a_starts = _starts(a)
        total = left.new_zeros(a.batch, b.batch)
        for f in range(left.shape[1]):
            total += embedding_bag(
                a.places, b.table(right[:, f]), a_starts, per_sample_weights=left[:, f].contiguous(), mode="sum"
            )
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        a, b = ctx.columns
        grad = grads[0].contiguous()
        d_left = d_right = None
        if ctx.needs_input_grad[0]:
            d_left = _pull(grad, a, right, b)
        if ctx.needs_input_grad[1]:
            d_right = _pull(grad.t().contiguous(), b, left, a)
        return d_left, d_right, None, None


def _pull(
    grad: Float[Tensor, "rows others"], own: SparseColumns, values: Tensor, other: SparseColumns
) -> Float[Tensor, "nnz r"]:
    """For each entry, its row of `grad` times the other's column."""
    at = _starts(own)
    parts = [pair_products(grad, other.table(v), own.places, at) for v in values.unbind(1)]
    return torch.stack(parts, 1)


def _starts(columns: SparseColumns) -> Int[Tensor, " rows"]:
    return starts(torch.bincount(columns.rows, minlength=columns.batch))
