"""The encoder's gradient: at the pairs of a support alone, or at all of them.

b_dec's comes through b_enc's: it is the sum over rows of -d_x, without forming d_x (Gao et al. 2024, released code).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.codes import SparseSupport
from unbraid.dictionary.products import product


def encoded_pairs(
    x: Float[Tensor, "batch d_in"],
    b_dec: Float[Tensor, " d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    pre: Float[Tensor, " nnz"],
    support: SparseSupport,
) -> Float[Tensor, " nnz"]:
    """Return `pre`, which is ((x - b_dec) @ W_enc + b_enc) at the support, with the gradient of having computed it
    there alone."""
    return _EncodedPairs.apply(x, b_dec, W_enc, b_enc, pre, support)


def encoded(
    x: Float[Tensor, "batch d_in"],
    b_dec: Float[Tensor, " d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    *,
    bfloat16: bool = False,
) -> Float[Tensor, "batch d_sae"]:
    """Return (x - b_dec) @ W_enc + b_enc. Its gradient takes one product where x has none, not two. With `bfloat16` the
    factors of all of them are rounded."""
    return _Encoded.apply(x, b_dec, W_enc, b_enc, bfloat16)


class _EncodedPairs(torch.autograd.Function):
    """The identity on `pre`, with the encoder's gradient restricted to the support."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, pre: Tensor, support: SparseSupport
    ) -> Tensor:
        ctx.save_for_backward(x, b_dec, W_enc)
        ctx.support = support
        return pre.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, b_dec, W_enc = ctx.saved_tensors
        d_pre, support = grads[0].contiguous(), ctx.support
        d_x = d_b_dec = d_W = d_b = None
        d_bias = torch.zeros(support.d_sae, dtype=d_pre.dtype, device=d_pre.device)
        d_bias.index_add_(0, support.latents, d_pre)
        if ctx.needs_input_grad[0]:
            rows_of_W = W_enc.t().contiguous()
            d_x = support.sums(support.latents, rows_of_W, support.offsets[:-1], d_pre)
        if ctx.needs_input_grad[1]:
            d_b_dec = -(W_enc @ d_bias)
        if ctx.needs_input_grad[2]:
            d_W = support.sum_by_latent(d_pre, x - b_dec, support.rows_by_latent).t()
        if ctx.needs_input_grad[3]:
            d_b = d_bias
        return d_x, d_b_dec, d_W, d_b, None, None


class _Encoded(torch.autograd.Function):
    """The encoder."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, bfloat16: bool) -> Tensor:
        ctx.save_for_backward(x, b_dec, W_enc)
        ctx.bfloat16 = bfloat16
        if bfloat16:
            return product(x - b_dec, W_enc, bfloat16=True).add_(b_enc)
        return torch.addmm(b_enc, x - b_dec, W_enc)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, b_dec, W_enc = ctx.saved_tensors
        d_pre, bfloat16 = grads[0], ctx.bfloat16
        d_bias = d_pre.sum(0)
        d_x = product(d_pre, W_enc.t(), bfloat16=bfloat16) if ctx.needs_input_grad[0] else None
        d_b_dec = -(W_enc @ d_bias) if ctx.needs_input_grad[1] else None
        # As W_enc is stored, a latent at a time.
        d_W = product(d_pre.t(), x - b_dec, bfloat16=bfloat16).t() if ctx.needs_input_grad[2] else None
        return d_x, d_b_dec, d_W, d_bias if ctx.needs_input_grad[3] else None, None
