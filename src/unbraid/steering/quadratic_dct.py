"""Quadratic DCT: rank-one factors of the slice's second derivatives (Mack and Turner 2024, Algorithm 2).

    T(v, w) = d^2 pooled / dtheta^2 [v, w] at 0,        T ~ sum_l alpha_l u_l (v_l ⊗ v_l)
    repeat: V <- orthonormalised V;  u_l <- T(v_l, v_l),  v_l <- T(u_l, v_l, .), both to unit norm
    alpha = K^-1 [u_l . T(v_l, v_l)],   K = (U U') * (V V')^2

Symmetric orthogonalised alternating least squares. The derivatives are true second ones: the released code
differentiates the first derivative by its tangent, which gives J v back, and finds nothing on a quadratic slice.
"""

from dataclasses import dataclass

import torch

from unbraid.config.settings import PositiveInt
from unbraid.effects.independence import norm_one
from unbraid.steering.base import FitContext, FitResult, SliceFit
from unbraid.steering.exponential_dct import begun, least_squares
from unbraid.steering.jacobian import stronger_side


@dataclass(frozen=True, kw_only=True)
class QuadraticDct(SliceFit):
    """The quadratic DCT's fit. Strength: |alpha|."""

    rounds: PositiveInt = 20

    def fit(self, count: int, context: FitContext) -> FitResult:
        after = context.slice
        if count > after.d_in:
            raise ValueError(
                f"its directions start each round orthonormal, so there are at most {after.d_in} and {count} latents "
                f"were requested: set --dictionary.d-sae {after.d_in} or less, or fit the exponential DCT"
            )
        acts = after.contexts.acts
        if context.reached:
            u, v = context.reached["u"].to(acts), context.reached["moved"].to(acts)
        else:
            u = torch.zeros(count, after.contexts.base.shape[-1]).to(acts)
            v = torch.randn(count, after.d_in, generator=context.rng).to(acts)
        for index in range(begun(context), self.rounds):
            v = torch.linalg.qr(v.T).Q.T
            curved = after.second(v)
            check_curved(curved)
            u = norm_one(curved)
            v = norm_one(after.second_back(u, v))
            u, v = u.contiguous(), v.contiguous()  # files keep no order, and in another the same numbers sum to others
            context.watch(index + 1, self.rounds)
            context.keep({"index": torch.tensor(index + 1), "moved": v, "u": u})
        inner = (u * after.second(v)).sum(1)
        alpha = least_squares((u @ u.T) * (v @ v.T).square(), inner)
        return FitResult(stronger_side(after, v, context.length), alpha.abs())


def check_curved(curved: torch.Tensor) -> None:
    """Raise ValueError when the slice has no second derivative along any direction."""
    if not float(curved.abs().max()) > 1e-12:
        raise ValueError(
            "the downstream layers have no second derivative along these directions, so there is nothing quadratic "
            "to fit; choose a later --source.downstream-layer, or the linear DCT"
        )
