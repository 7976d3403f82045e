"""JumpReLU: pre where pre > threshold, else 0; thresholds learn straight through (Rajamanoharan et al. 2024b).

d z / d theta = -theta K((pre - theta) / bandwidth) / bandwidth,   K the rectangle kernel     (arXiv 2407.14435, eq. 11)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.dictionary.activations.base import Thresholded
from unbraid.dictionary.activations.selection import calibrate
from unbraid.dictionary.row_blocks import row_blocks
from unbraid.dictionary.weights import Acts, Latents, Weights


@dataclass(frozen=True)
class JumpReLU(Thresholded):
    """pre where pre > threshold, else 0; thresholds learn straight through (Rajamanoharan et al. 2024, eq. 11)."""

    bandwidth: NonNegativeFloat = 0.5
    """Width of the window around a threshold in which it gets gradient, in normalised activations. 0: inference.
    Thresholds settle at 0.5 to 2 there, so narrower windows leave most of them without gradient (docs/log.md)."""
    initial_l0: PositiveInt = 128
    """Thresholds start at one value, the one that leaves this many latents active a token (at most a quarter of
    them); with an L0 target, as many as that."""
    learns_threshold: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return _JumpReLU.apply(pre, threshold, self.bandwidth)

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return _JumpReLU.apply(pre, threshold, self.bandwidth)

    def margin(self) -> float:
        return self.bandwidth / 2

    def kernel(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return window(pre, threshold, self.bandwidth)

    @torch.no_grad()
    def initialise(self, dictionary: Weights, sample: Acts) -> None:
        wanted = min(self.initial_l0, max(1, dictionary.width // 4))
        dictionary.threshold.fill_(calibrate(wanted, dictionary.chunks(sample)))

    @torch.no_grad()
    def start_at_l0(self, dictionary: Weights, sample: Acts, l0: int) -> None:
        if dictionary.threshold.requires_grad:
            dictionary.threshold.fill_(calibrate(l0, dictionary.chunks(sample)))

    def architecture(self) -> Mapping[str, Any]:
        return {"architecture": "jumprelu"}


def window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Return the rectangle kernel: 1 / bandwidth within half a bandwidth of the threshold, else 0."""
    if bandwidth == 0:
        return torch.zeros_like(pre)
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype) / bandwidth


class _JumpReLU(torch.autograd.Function):
    """The activation of entries with a threshold each or, of a matrix, with one a column."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        if pre.ndim == 1:
            d_threshold = window(pre, threshold, ctx.bandwidth) * grads[0]
            return grads[0] * (pre > threshold), -threshold * d_threshold, None
        d_pre, sums = torch.empty_like(pre), []
        for entries, grad, out in row_blocks(pre, grads[0], d_pre):
            torch.mul(grad, entries > threshold, out=out)
            sums.append((window(entries, threshold, ctx.bandwidth) * grad).sum(0))
        return d_pre, -threshold * torch.stack(sums).sum(0), None
