"""Codes of the whole batch, in every process of a group that shares its rows out.

Each process then computes the same loss of them, so the gradient of its own rows counts as often as there are
processes: the mean over the group, which training takes, is the gradient of that loss.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes, SparseSupport, starts
from unbraid.system.group import Group


def joined_codes(z: Codes, group: Group) -> Codes:
    """Return the codes of all rows of a group, in order, differentiable by this process's own."""
    if isinstance(z, DenseCodes):
        return replace(z, pre=_Joined.apply(z.pre, group), values=_Joined.apply(z.values, group))
    assert isinstance(z, SparseCodes)
    counts = group.joined(z.support.offsets.diff())
    offsets = torch.cat([starts(counts), counts.sum(0, keepdim=True)])
    support = SparseSupport(group.joined(z.support.latents), offsets, z.d_sae, z.support.kernels)
    return SparseCodes(_Joined.apply(z.pre, group), _Joined.apply(z.values, group), support)


class _Joined(torch.autograd.Function):
    """The rows of all processes; backward, the gradient of this one's, times their number."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        counts = group.counts(len(rows))
        ctx.begins, ctx.rows, ctx.size = sum(counts[: group.rank]), len(rows), group.size
        return group.joined(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][ctx.begins : ctx.begins + ctx.rows] * ctx.size, None
