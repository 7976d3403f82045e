"""Latents that processes hold together, an equal share each: sums over all of them, and what each starts with.

Every process sees all rows, and has the same reconstruction and losses. So what is summed over latents is summed over
processes on the way to the loss, and on the way back each has the gradient of its own addend without asking others.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.system.group import Group

BLOCK = 256
"""Rows that are drawn at once: of normal numbers torch makes sixteen at a time, so that blocks of a multiple give what
a single draw gives."""


def summed(part: Float[Tensor, "*fold"], shards: Group) -> Float[Tensor, "*fold"]:
    """Return the sum of what the processes have of a sum over latents, differentiable by this one's part."""
    return part if shards.alone else _Summed.apply(part, shards)


class _Summed(torch.autograd.Function):
    """The sum over processes; its gradient is the same in all, and that of each part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shards: Group) -> Tensor:
        return shards.sum(part)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


def own_rows_of_normal(rows: int, columns: int, rng: torch.Generator, shards: Group) -> Float[Tensor, "own columns"]:
    """Return this process's `rows` rows of the matrix of normal numbers that one process would draw, which is never
    there as a whole."""
    if shards.alone:
        return torch.randn(rows, columns, generator=rng)
    own, first, whole = torch.empty(rows, columns), shards.rank * rows, shards.size * rows
    starts = [*range(0, whole - BLOCK + 1, BLOCK)] or [0]  # the last block has what is left over
    for start, end in zip(starts, [*starts[1:], whole], strict=True):
        block = torch.randn(end - start, columns, generator=rng)
        low, high = max(start, first), min(end, first + rows)
        if low < high:
            own[low - first : high - first] = block[low - start : high - start]
    return own
