"""Products of whole matrices, whose factors a setting may have rounded to bfloat16."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def product(
    left: Float[Tensor, "row inner"], right: Float[Tensor, "inner column"], *, bfloat16: bool
) -> Float[Tensor, "row column"]:
    """Return left @ right in the precision of its factors. With `bfloat16` these are rounded first, where the processor
    multiplies so, and sums are in float32."""
    if not bfloat16 or left.dtype != torch.float32:
        return left @ right
    if not left.is_cpu:
        return (left.bfloat16() @ right.bfloat16()).float()
    # oneDNN rounds as it copies factors into the order it reads them in, and gives float32. Without such products it
    # computes in float32.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        return left @ right
    finally:
        torch.set_float32_matmul_precision(before)


def decoded(
    values: Float[Tensor, "batch latent"], atoms: Float[Tensor, "latent d_in"], *, bfloat16: bool
) -> Float[Tensor, "batch d_in"]:
    """Return values @ atoms; with `bfloat16` its factors are rounded, and those of its gradients."""
    return _Decoded.apply(values, atoms) if bfloat16 else values @ atoms


class _Decoded(torch.autograd.Function):
    """The decoder with products in bfloat16."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor) -> Tensor:
        ctx.save_for_backward(values, atoms)
        return product(values, atoms, bfloat16=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms = ctx.saved_tensors
        d_values = product(grads[0], atoms.t(), bfloat16=True) if ctx.needs_input_grad[0] else None
        d_atoms = product(values.t(), grads[0], bfloat16=True) if ctx.needs_input_grad[1] else None
        return d_values, d_atoms
