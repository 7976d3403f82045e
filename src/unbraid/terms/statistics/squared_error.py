"""Squared errors, summed, with their gradient in one pass: what autograd makes of square() and sum() takes four."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def squared_error(predicted: Float[Tensor, "*row d_in"], x: Float[Tensor, "*row d_in"]) -> Float[Tensor, ""]:
    """Return |predicted - x|^2, summed over rows. No gradient reaches x."""
    return _SquaredError.apply(predicted, x.detach())


def squared_errors_of_levels(
    levels: Float[Tensor, "batch level d_in"], b_dec: Float[Tensor, " d_in"], x: Float[Tensor, "batch d_in"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return |level + b_dec - x|^2, summed over rows, of all levels but the last together, and of the last. No gradient
    reaches x."""
    return _SquaredErrorsOfLevels.apply(levels, b_dec, x.detach())


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, x: Tensor) -> Tensor:
        away = predicted - x
        ctx.save_for_backward(away)
        return away.square().sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (away,) = ctx.saved_tensors
        return away * (2 * grads[0]), None


class _SquaredErrorsOfLevels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, levels: Tensor, b_dec: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        away = levels - (x - b_dec).unsqueeze(1)
        ctx.save_for_backward(away)
        return away[:, :-1].square().sum(), away[:, -1].square().sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (away,) = ctx.saved_tensors
        of_inner, of_whole = grads
        d_levels = torch.empty_like(away)
        torch.mul(away[:, :-1], 2 * of_inner, out=d_levels[:, :-1])
        torch.mul(away[:, -1], 2 * of_whole, out=d_levels[:, -1])
        d_b_dec = None
        if ctx.needs_input_grad[1]:
            d_b_dec = d_levels[:, :-1].sum(1).sum(0) + d_levels[:, -1].sum(0)
        return d_levels, d_b_dec, None
