"""The sparse step's kernels in Triton. Tests run them in Triton's interpreter; no GPU has run them yet.

Every output is written by one program, with no atomic additions: results do not depend on the order in which programs
run. The k largest of a row are found by four counts of its values' digits, from the highest of their 8 bits to the
lowest: whatever the width, a row is read six times and nothing of its size is kept.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.kernels import Kernels

MOST_COLUMNS = 1024
"""Of a sum that one program computes."""
LARGEST_BLOCK = 1024
"""Latents of a row that are looked at together."""
SORTABLE = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TritonKernels(Kernels):
    """The sparse step's kernels in Triton."""

    def sums(
        self,
        items: Int[Tensor, " nnz"],
        vectors: Float[Tensor, "item d_in"],
        bag_starts: Int[Tensor, " bag"],
        weights: Float[Tensor, " nnz"],
    ) -> Float[Tensor, "bag d_in"]:
        bags, d_in = len(bag_starts), vectors.shape[1]
        out = vectors.new_empty(bags, d_in)
        block = min(triton.next_power_of_2(d_in), MOST_COLUMNS)
        if out.numel():
            grid = (bags, triton.cdiv(d_in, block))
            launched(_sums)[grid](
                items, vectors.contiguous(), bounds(bag_starts, items), weights.contiguous(), out, d_in, BLOCK=block
            )
        return out

    def products(
        self,
        left: Float[Tensor, "bag d_in"],
        right: Float[Tensor, "item d_in"],
        items: Int[Tensor, " nnz"],
        bag_starts: Int[Tensor, " bag"],
    ) -> Float[Tensor, " nnz"]:
        d_in, out = left.shape[1], left.new_empty(len(items))
        if out.numel():
            block = triton.next_power_of_2(d_in)
            launched(_products)[(len(bag_starts),)](
                left.contiguous(), right.contiguous(), items, bounds(bag_starts, items), out, d_in, BLOCK=block
            )
        return out

    def largest_in_rows(
        self, pre: Float[Tensor, "rows d_sae"], k: int
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """Return values and latents of the k largest of each row, latents ascending; of equal values those of the
        first latents. Raises ValueError for float64, whose digits are not counted."""
        if pre.dtype not in SORTABLE:
            raise ValueError(
                f"Triton's kernels choose the largest of float32 or less, and these are {pre.dtype}; use "
                "--training.kernels torch"
            )
        rows, d_sae = pre.shape
        values = pre.new_empty(rows, k)
        latents = torch.empty(rows, k, dtype=torch.long, device=pre.device)
        if values.numel():
            block = min(triton.next_power_of_2(d_sae), LARGEST_BLOCK)
            launched(_largest)[(rows,)](pre.contiguous(), values, latents, d_sae, k, BLOCK=block)
        return values, latents


def launched(kernel: Any) -> Any:
    """Return a kernel as it is: type checkers that do not find triton take it for a plain function."""
    return kernel


def bounds(bag_starts: Int[Tensor, " bag"], items: Int[Tensor, " nnz"]) -> Int[Tensor, " starts"]:
    """Return where each bag begins, and where the last one ends."""
    return torch.cat([bag_starts, bag_starts.new_full((1,), len(items))])


@triton.jit
def _sums(items, vectors, bounds, weights, out, d_in, BLOCK: tl.constexpr):
    """A block of columns of the sum of one bag."""
    bag = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < d_in
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for entry in range(tl.load(bounds + bag), tl.load(bounds + bag + 1)):
        vector = vectors + tl.load(items + entry) * d_in + column
        total += tl.load(weights + entry) * tl.load(vector, mask=inside, other=0.0)
    tl.store(out + bag * d_in + column, total, mask=inside)


@triton.jit
def _products(left, right, items, bounds, out, d_in, BLOCK: tl.constexpr):
    """The products of one bag's vector with its items'."""
    bag = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < d_in
    own = tl.load(left + bag * d_in + column, mask=inside, other=0.0)
    for entry in range(tl.load(bounds + bag), tl.load(bounds + bag + 1)):
        vector = right + tl.load(items + entry) * d_in + column
        tl.store(out + entry, tl.sum(own * tl.load(vector, mask=inside, other=0.0)))


@triton.jit
def _ordered(value):
    """Whole numbers from 0 to 2**32 - 1 in the order of float32 values."""
    bits = value.to(tl.float32).to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return tl.where(bits >= 0x80000000, 0xFFFFFFFF - bits, bits + 0x80000000)


@triton.jit
def _largest(pre, values, latents, d_sae, k, BLOCK: tl.constexpr):
    """The k largest of one row. The k-th largest is found first, digit by digit."""
    row = tl.program_id(0).to(tl.int64)
    offset, digits = tl.arange(0, BLOCK), tl.arange(0, 256)
    kth = tl.zeros([1], dtype=tl.int64)
    left = tl.zeros([1], dtype=tl.int32) + k
    for step in tl.static_range(4):
        shift: tl.constexpr = 24 - 8 * step
        counts = tl.zeros([256], dtype=tl.int32)
        for start in range(0, d_sae, BLOCK):
            latent = start + offset
            inside = latent < d_sae
            key = _ordered(tl.load(pre + row * d_sae + latent, mask=inside, other=0.0))
            same = inside & ((key >> (shift + 8)) == (kth >> (shift + 8)))
            counts += tl.histogram(((key >> shift) & 255).to(tl.int32), 256, mask=same)
        # The highest digit that so many entries still sought have, or a higher one.
        from_top = tl.cumsum(counts, reverse=True)
        digit = tl.sum((from_top >= left).to(tl.int32)) - 1
        left -= tl.sum(tl.where(digits > digit, counts, 0))
        kth += digit.to(tl.int64) << shift
    written = tl.zeros([1], dtype=tl.int32)
    equal_before = tl.zeros([1], dtype=tl.int32)
    for start in range(0, d_sae, BLOCK):
        latent = start + offset
        inside = latent < d_sae
        value = tl.load(pre + row * d_sae + latent, mask=inside, other=0.0)
        key = _ordered(value)
        equal = (inside & (key == kth)).to(tl.int32)
        # Of those equal to the k-th largest the first ones fill what is left.
        fills = (equal > 0) & (equal_before + tl.cumsum(equal) <= left)
        kept = (inside & (key > kth)) | fills
        place = row * k + written + tl.cumsum(kept.to(tl.int32)) - 1
        tl.store(values + place, value, mask=kept)
        tl.store(latents + place, latent.to(tl.int64), mask=kept)
        written += tl.sum(kept.to(tl.int32))
        equal_before += tl.sum(equal)
