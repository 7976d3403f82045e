"""L1 sparsity: sum of |z_i| |d_i|, averaged over tokens (Bricken et al. 2023). Atoms have unit norm, so |d_i| = 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class L1(Term):
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.over_latents(_SumOfSizes.apply(step.z.values)) / step.z.batch)


class _SumOfSizes(torch.autograd.Function):
    """sum |v|, with one matrix of the size of v made in all, where abs() and its gradient make three."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.linalg.vector_norm(values, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return values.sgn().mul_(grads[0])
