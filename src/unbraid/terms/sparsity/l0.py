"""L0 sparsity: the number of pre-activations above their thresholds, averaged over tokens, for JumpReLU.

The count's gradient reaches thresholds alone, by the rectangle kernel (Rajamanoharan et al. 2024, eq. 12):
d/d theta of H(pre - theta) = -K((pre - theta) / bandwidth) / bandwidth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.dictionary.row_blocks import row_blocks
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class L0(Term):
    signed: ClassVar[bool] = True
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        if not (isinstance(activation, Thresholded) and activation.learns_threshold):
            raise ValueError(
                f"the L0 penalty moves JumpReLU's thresholds; {type(activation).__name__} has none: "
                "use L1, or --dictionary.activation JumpReLU"
            )

    def __call__(self, step: Step) -> TermOutput:
        activation = step.dictionary.activation
        self.check_activation(activation)
        assert isinstance(activation, Thresholded)
        threshold = step.z.per_entry(step.dictionary.threshold)
        count = _CountAbove.apply(step.z.pre, threshold, activation.kernel)
        return TermOutput(count / step.z.batch)


Kernel = Callable[[Tensor, Tensor], Tensor]


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
