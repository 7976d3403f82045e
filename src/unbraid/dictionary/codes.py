"""Codes: the active latents of a batch, sparse or dense, and how atoms are summed.

Only active latents carry gradient, so a sparse code costs one dense product (the encoder) a step instead of five. The
active (row, latent) pairs are grouped by latent once; both weight gradients are then sums over bags of rows, written
once per latent, and nothing of size batch x d_sae or nnz x d_in is ever kept. The dense form is the oracle the sparse
one is tested against, and the faster form when many latents are active (`Weights.dense_limit`).
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from unbraid.dictionary.kernels import Kernels
from unbraid.dictionary.products import decoded
from unbraid.dictionary.row_blocks import row_blocks
from unbraid.system.devices import sent

Atoms = Float[Tensor, "d_sae d_in"]


@dataclass(frozen=True)
class SparseSupport:
    """The (row, latent) pairs of sparse codes, as compressed rows; latents ascend within a row."""

    latents: Int[Tensor, " nnz"]
    offsets: Int[Tensor, " starts"]
    """Row b holds entries offsets[b] to offsets[b + 1]."""
    d_sae: int
    kernels: Kernels | None = None
    """What computes sums and products over the pairs; None: torch's operations."""

    @property
    def batch(self) -> int:
        return self.offsets.shape[0] - 1

    @cached_property
    def rows(self) -> Int[Tensor, " nnz"]:
        counts = self.offsets.diff()
        row = torch.arange(self.batch, device=counts.device)
        return torch.repeat_interleave(row, counts, output_size=self.latents.shape[0])

    @cached_property
    def counts(self) -> Int[Tensor, " d_sae"]:
        """The number of entries of each latent."""
        return counted(self.latents, self.d_sae)

    @cached_property
    def by_latent(self) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " d_sae"]]:
        """The order that groups entries by latent, and where each latent's group starts."""
        order, latent_starts, _ = self._grouped
        return order, latent_starts

    @cached_property
    def rows_by_latent(self) -> Int[Tensor, " nnz"]:
        """The rows of the entries in the order of `by_latent`."""
        return self._grouped[2]

    @cached_property
    def _grouped(self) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " d_sae"], Int[Tensor, " nnz"]]:
        """`by_latent`, and the entries' rows in this order."""
        if not self.latents.is_cpu:
            order = torch.argsort(self.latents, stable=True)
            return order, starts(self.counts), self.rows[order]
        # NumPy sorts numbers of up to 16 bits by counting: five to ten times as fast as torch.
        latents = self.latents.numpy()
        order = np.argsort(latents.astype(np.min_scalar_type(self.d_sae - 1)), kind="stable")
        counts = np.bincount(latents, minlength=self.d_sae)
        rows = np.repeat(np.arange(self.batch), np.diff(self.offsets.numpy()))[order]
        return torch.from_numpy(order), torch.from_numpy(counts.cumsum() - counts), torch.from_numpy(rows)

    def sum_by_latent(
        self, weights: Float[Tensor, " nnz"], vectors: Float[Tensor, "bag d_in"], bags: Int[Tensor, " nnz"]
    ) -> Atoms:
        """Return, for each latent, the sum over its entries of weight * vectors[bag]: the form of a weight gradient.
        `bags`, unlike `weights`, in the order of `by_latent`."""
        order, latent_starts = self.by_latent
        return self.sums(bags, vectors, latent_starts, weights[order])

    def sums(
        self,
        items: Int[Tensor, " nnz"],
        vectors: Float[Tensor, "item d_in"],
        bag_starts: Int[Tensor, " bag"],
        weights: Float[Tensor, " nnz"],
    ) -> Float[Tensor, "bag d_in"]:
        """Return, for each bag, the sum over its items of weight * vectors[item]."""
        if self.kernels is not None:
            return self.kernels.sums(items, vectors, bag_starts, weights)
        return embedding_bag(items, vectors, bag_starts, per_sample_weights=weights, mode="sum")

    def products(
        self, vectors: Float[Tensor, "bag d_in"], atoms: Atoms, bags: Int[Tensor, " nnz"]
    ) -> Float[Tensor, " nnz"]:
        """Return vectors[bag] . atoms[latent] for every entry. `bags` in the order of `by_latent`."""
        # Latent by latent an atom stays in cache and the few vectors are gathered: over three times faster than row by
        # row once the atoms outgrow the cache (16k latents), equal before.
        order, latent_starts = self.by_latent
        products = pair_products if self.kernels is None else self.kernels.products
        ordered = products(atoms, vectors, bags, latent_starts)
        return torch.empty_like(ordered).index_copy_(0, order, ordered)


def starts(counts: Int[Tensor, " bag"]) -> Int[Tensor, " bag"]:
    """Return where each bag begins when bags of these sizes follow one another: the exclusive cumulative sum."""
    return counts.cumsum(0) - counts


def counted(items: Int[Tensor, " item"], size: int, each: Int[Tensor, " item"] | None = None) -> Int[Tensor, " size"]:
    """Return how many of each number below `size` there are, an item counting as many as `each` says. The host need not
    wait, as it must for bincount's look at the largest."""
    ones = torch.ones_like(items) if each is None else each
    return ones.new_zeros(size).scatter_add_(0, items, ones)


def unrolled(counts: Int[Tensor, " bag"]) -> tuple[Int[Tensor, " item"], Int[Tensor, " item"]]:
    """Return the bag of every item when bags of these sizes follow one another, and the item's place in its bag."""
    bag = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return bag, torch.arange(len(bag), device=bag.device) - starts(counts)[bag]


def find_sorted(
    keys: Int[Tensor, " nnz"], wanted: Int[Tensor, "*fold"]
) -> tuple[Int[Tensor, "*fold"], Bool[Tensor, "*fold"]]:
    """Return the place of each wanted key among ascending ones, and whether it is there; where it is not, the place
    means nothing."""
    if not len(keys):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return place, keys[place] == wanted


class Codes(ABC):
    """Latents of a batch. Both forms give the same numbers; elementwise terms need not care which they got."""

    pre: Float[Tensor, " *entry"]
    """Pre-activations of the entries, differentiable."""
    values: Float[Tensor, " *entry"]
    """Latents of the entries, differentiable; an entry may be zero (inactive, inside a threshold's window)."""

    @property
    @abstractmethod
    def batch(self) -> int: ...

    @property
    @abstractmethod
    def d_sae(self) -> int: ...

    @abstractmethod
    def per_entry(self, per_latent: Float[Tensor, " d_sae"]) -> Float[Tensor, " per_entry"]:
        """Return a per-latent quantity in a shape that goes with the entries' (it broadcasts), differentiable."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "batch d_sae"]:
        """Return all latents, one column each. Allocates batch x d_sae when the code is sparse."""

    @abstractmethod
    def entries(self) -> tuple[Float[Tensor, " nnz"], Int[Tensor, " nnz"], Int[Tensor, " nnz"]]:
        """Return (values, rows, latents) of the non-zero pairs, row by row."""

    @abstractmethod
    def decode(self, atoms: Atoms) -> Float[Tensor, "batch d_in"]:
        """Return the sum of atoms weighted by values, without the bias."""

    @abstractmethod
    def decode_nested(self, atoms: Atoms, widths: Sequence[int]) -> Float[Tensor, "batch level d_in"]:
        """Return `decode` of the first widths[l] latents alone, for every level l. `widths` ascend and end at d_sae."""

    @abstractmethod
    def in_order(self, order: Int[Tensor, " d_sae"]) -> "Codes":
        """Return the same codes with latents numbered anew: latent order[i] becomes latent i."""

    @abstractmethod
    def firings(self) -> Int[Tensor, " d_sae"]:
        """Return the number of rows in which each latent is non-zero."""

    def l0(self) -> Float[Tensor, ""]:
        """Return the mean number of non-zero latents a row (a measurement: no gradient)."""
        return (self.values.detach() != 0).sum(dtype=self.values.dtype) / self.batch


@dataclass(frozen=True)
class SparseCodes(Codes):
    """Codes as the values of a support, one number a (row, latent) pair."""

    pre: Float[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    support: SparseSupport

    @property
    def batch(self) -> int:
        return self.support.batch

    @property
    def d_sae(self) -> int:
        return self.support.d_sae

    def per_entry(self, per_latent: Float[Tensor, " d_sae"]) -> Float[Tensor, " nnz"]:
        return per_latent.index_select(0, self.support.latents)

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        zeros = self.values.new_zeros(self.batch, self.d_sae)
        return zeros.index_put((self.support.rows, self.support.latents), self.values)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        active = (self.values.detach() != 0).nonzero().squeeze(1)
        return self.values[active], self.support.rows[active], self.support.latents[active]

    def decode(self, atoms: Atoms) -> Float[Tensor, "batch d_in"]:
        return _SumOfAtoms.apply(self.values, atoms, self.support, None, self.support.offsets[:-1])

    def decode_nested(self, atoms: Atoms, widths: Sequence[int]) -> Float[Tensor, "batch level d_in"]:
        # One bag per (row, level) touches each entry once whatever the number of levels; levels then add up.
        levels = len(widths)
        bounds = sent(torch.tensor(list(widths[:-1]), dtype=torch.long), self.support.latents.device)
        level = torch.bucketize(self.support.latents, bounds, right=True)
        bags = self.support.rows * levels + level
        bag_starts = starts(counted(bags, self.batch * levels))
        parts = _SumOfAtoms.apply(self.values, atoms, self.support, bags, bag_starts)
        return _PrefixSums.apply(parts, levels).view(self.batch, levels, -1)

    def in_order(self, order: Int[Tensor, " d_sae"]) -> "SparseCodes":
        place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
        latents = place[self.support.latents]
        # Latents ascend within a row.
        moved = (self.support.rows * self.d_sae + latents).argsort()
        support = replace(self.support, latents=latents[moved])
        return SparseCodes(self.pre[moved], self.values[moved], support)

    def firings(self) -> Int[Tensor, " d_sae"]:
        return counted(self.support.latents, self.d_sae, (self.values.detach() != 0).long())


@dataclass(frozen=True)
class DenseCodes(Codes):
    """Codes as a matrix of all values."""

    pre: Float[Tensor, "batch d_sae"]
    values: Float[Tensor, "batch d_sae"]
    bfloat16: bool = False
    """Whether products with atoms, and those of their gradients, round their factors."""

    @property
    def batch(self) -> int:
        return self.values.shape[0]

    @property
    def d_sae(self) -> int:
        return self.values.shape[1]

    def per_entry(self, per_latent: Float[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
        return per_latent

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        return self.values

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        rows, latents = self.values.detach().nonzero(as_tuple=True)
        return self.values[rows, latents], rows, latents

    def decode(self, atoms: Atoms) -> Float[Tensor, "batch d_in"]:
        return decoded(self.values, atoms, bfloat16=self.bfloat16)

    def decode_nested(self, atoms: Atoms, widths: Sequence[int]) -> Float[Tensor, "batch level d_in"]:
        lows = [0, *widths[:-1]]
        bounds = zip(lows, widths, strict=True)
        parts = [decoded(self.values[:, a:b], atoms[a:b], bfloat16=self.bfloat16) for a, b in bounds]
        return torch.stack(parts, 1).cumsum(1)

    def in_order(self, order: Int[Tensor, " d_sae"]) -> "DenseCodes":
        return replace(self, pre=self.pre.index_select(1, order), values=self.values.index_select(1, order))

    def firings(self) -> Int[Tensor, " d_sae"]:
        return torch.stack([(rows != 0).sum(0) for (rows,) in row_blocks(self.values.detach())]).sum(0)


def pair_products(
    left: Float[Tensor, "bag d_in"], right: Float[Tensor, "item d_in"], items: Tensor, bag_starts: Tensor
) -> Float[Tensor, " nnz"]:
    """Return left[bag] . right[item] for every item of every bag, bags ascending; nnz x d_in is never gathered."""
    bounds = torch.cat([bag_starts, bag_starts.new_full((1,), len(items))])
    if left.device.type == "cpu" and left.dtype in (torch.float32, torch.float64):
        return _sampled_products(left, right, items, bounds)
    bags = torch.repeat_interleave(bounds.diff(), output_size=len(items))
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(left, right, items, bag_starts, bags, 0, -1)


def _sampled_products(left: Tensor, right: Tensor, items: Tensor, bounds: Tensor) -> Float[Tensor, " nnz"]:
    """`pair_products` on the CPU, in half the time: the kernel of embedding bags calls BLAS once a pair."""
    _hear_of_beta()
    shape = (len(left), len(right))
    pairs = torch.sparse_csr_tensor(bounds, items, left.new_zeros(len(items)), shape, check_invariants=False)
    return torch.sparse.sampled_addmm(pairs, left, right.t(), beta=0.0).values()


@cache
def _hear_of_beta() -> None:
    """Have torch say the one time it does, unheard, that compressed matrices are in beta: to ignore a warning takes as
    long as a small step's products."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)


class _SumOfAtoms(torch.autograd.Function):
    """out[bag] = sum over the bag's entries of value * atom; without bags, those are the rows."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, atoms: Tensor, support: SparseSupport, bags: Tensor | None, bag_starts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, atoms, bags)
        ctx.support = support
        return support.sums(support.latents, atoms, bag_starts, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms, bags = ctx.saved_tensors
        grad, support = grads[0].contiguous(), ctx.support
        grouped = support.rows_by_latent if bags is None else bags[support.by_latent[0]]
        d_values = d_atoms = None
        if ctx.needs_input_grad[0]:
            d_values = support.products(grad, atoms, grouped)
        if ctx.needs_input_grad[1]:
            d_atoms = support.sum_by_latent(values, grad, grouped)
        return d_values, d_atoms, None, None, None


class _PrefixSums(torch.autograd.Function):
    """Cumulative sums over each row's levels, in place: several times faster than cumsum and its two flips backward."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, levels: int) -> Tensor:
        ctx.levels = levels
        ctx.mark_dirty(parts)
        by_level = parts.view(-1, levels, parts.shape[1])
        for level in range(1, levels):
            by_level[:, level] += by_level[:, level - 1]
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        by_level = grad.view(-1, ctx.levels, grad.shape[1])
        for level in reversed(range(ctx.levels - 1)):
            by_level[:, level] += by_level[:, level + 1]
        return grad, None
