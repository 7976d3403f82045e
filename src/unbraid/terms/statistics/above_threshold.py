"""The number of entries of a code that are above their thresholds, with a gradient that reaches thresholds alone.

d/d theta of H(pre - theta) = -K((pre - theta) / bandwidth) / bandwidth,   K: the activation's rectangle kernel
(Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 12)
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.dictionary.row_blocks import row_blocks
from unbraid.objective.objective import Step

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Returns the density of entries around their thresholds."""


def thresholded(activation: Activation) -> Thresholded:
    """Return an activation that learns thresholds. Raises ValueError for others."""
    if not (isinstance(activation, Thresholded) and activation.learns_threshold):
        raise ValueError(
            f"the L0 penalty moves JumpReLU's thresholds; {type(activation).__name__} has none: "
            "use L1, or --dictionary.activation JumpReLU"
        )
    return activation


def mean_l0(step: Step) -> Float[Tensor, ""]:
    """Return the mean number of active latents a row, those of other processes among them. Raises ValueError where the
    activation learns no thresholds."""
    activation = thresholded(step.dictionary.activation)
    threshold = step.z.per_entry(step.dictionary.threshold)
    count = _CountAbove.apply(step.z.pre, threshold, activation.kernel)
    assert isinstance(count, Tensor)
    return step.over_latents(count) / step.z.batch


class _CountAbove(torch.autograd.Function):
    """The number of entries above their thresholds, which are one an entry or, for a matrix, one a column."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, kernel: Kernel) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.kernel = kernel
        blocks = row_blocks(pre) if pre.ndim == 2 else [(pre,)]
        return torch.stack([(entries > threshold).sum() for (entries,) in blocks]).sum().to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        if pre.ndim == 2:
            density = torch.stack([ctx.kernel(rows, threshold).sum(0) for (rows,) in row_blocks(pre)]).sum(0)
        else:
            density = ctx.kernel(pre, threshold)
        return None, -density * grads[0], None
