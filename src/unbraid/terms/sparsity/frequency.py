"""Frequency penalty: latents that fire on a large share of tokens cost more than their share (JumpReLU).

    sum_i p_i^2 / scale,    p_i: share of the batch's rows in which latent i is above its threshold

Added to `l0`, which is sum_i p_i, it is the quadratic-frequency loss sum_i p_i (1 + p_i / scale) of Smith et al. 2025
(GDM's progress update 2): latents rarer than `scale` hardly notice, frequent ones pay by the square. Gemma Scope 2
trains with a penalty on frequency, too; its form is not in what is published of it here. Gradients reach thresholds
alone, by the kernel that `l0` uses.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import ShareAboveZero
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.codes import Codes, SparseCodes
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.above_threshold import Kernel, thresholded


@dataclass(frozen=True, kw_only=True)
class Frequency(Term):
    scale: ShareAboveZero = 0.1
    """Share of tokens at which a latent pays as much for its square as for being active; 10 % is where the source
    calls latents high-frequency."""
    family: ClassVar[Family] = "sparsity"
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        thresholded(activation)

    def __call__(self, step: Step) -> TermOutput:
        activation = thresholded(step.dictionary.activation)
        rates = firing_rates(step.z, step.dictionary.threshold, activation.kernel)
        return TermOutput(rates.square().sum() / self.scale, {"most": rates.max()})


def firing_rates(z: Codes, threshold: Float[Tensor, " d_sae"], kernel: Kernel) -> Float[Tensor, " d_sae"]:
    """Return the share of rows in which each latent is above its threshold, with gradient to thresholds."""
    opened = _Above.apply(z.pre, z.per_entry(threshold), kernel)
    if isinstance(z, SparseCodes):
        return torch.zeros_like(threshold).index_add(0, z.support.latents, opened) / z.batch
    return opened.sum(0) / z.batch


class _Above(torch.autograd.Function):
    """1 for entries above their thresholds, which are one an entry or, for a matrix, one a column; else 0."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, kernel: Kernel) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.kernel = kernel
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        density = ctx.kernel(pre, threshold) * grads[0]
        return None, -(density.sum(0) if pre.ndim == 2 else density), None
