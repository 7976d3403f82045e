"""Exponential DCT: a model slice as a sum of exponentials of projections (Mack and Turner 2024, eq. 3, Algorithm 3).

    pooled(R theta) ~ sum_l alpha_l expm1(v_l . theta) u_l

Its loss compares all derivatives at 0, the k-th over k!. For given V and U, alpha = K^-1 [u_l . pooled(R v_l)],
K = (U U') * expm1(V V'). Solvers:
    kernel  Adam on V for the loss that remains with the best U (`kernel`): needs only gradients, any number of
            directions, orthogonality relaxed by the kernel itself. Best where the slice is smooth
    ogi     V <- orthonormalised V;  u_l <- pooled(R v_l),  v_l <- gradient of u_l . pooled(R v_l), both to unit norm:
            the authors' orthogonalised gradient iteration, at most d_in directions. Best under hard gates
    sogi    the same with V pushed apart (`repulsion`) instead, any number of directions

A direction keeps the sign with which it was found, which is not always the one that moves more.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from unbraid.dictionary.initialisation import no_progress
from unbraid.effects import kernel
from unbraid.effects.independence import norm_one
from unbraid.effects.radius import random_units
from unbraid.steering.base import FitContext, FitResult, SliceFit, ascending, resume
from unbraid.steering.jacobian import sketch, top_right
from unbraid.steering.model_slice import Directions, Effects
from unbraid.steering.push_length import Followed, Lengths
from unbraid.steering.repulsion import repelled

STEPS = {"kernel": 300, "ogi": 10, "sogi": 10}


@dataclass(frozen=True, kw_only=True)
class ExponentialDct(SliceFit):
    """The exponential DCT's fit. Strength: |alpha|."""

    solver: Literal["kernel", "ogi", "sogi"] = "kernel"
    start: Literal["random", "jacobian"] = "random"
    """Random directions, or the top right singular vectors of the Jacobian projected to `rows` rows, random ones after
    them."""
    rows: PositiveInt = 32
    """Number of rows of that projection."""
    steps: NonNegativeInt = 0
    """Number of steps; 0 means 300 for the kernel and 10 for the others, as published."""
    lr: PositiveFloat = 3e-2
    """Learning rate of Adam for the kernel, in units of a unit vector's coordinates; falls linearly to a hundredth."""
    ridge: NonNegativeFloat = 1e-2
    """Number added to the kernel's diagonal."""

    def fit(self, count: int, context: FitContext) -> FitResult:
        if self.solver == "ogi" and count > context.slice.d_in:
            raise ValueError(
                f"OGI keeps its directions orthonormal, so there are at most {context.slice.d_in} and {count} latents "
                f"were requested: set --dictionary.d-sae {context.slice.d_in} or less, or --dictionary.init.solver "
                "kernel"
            )
        acts, reached = context.slice.contexts.acts, context.reached
        v = reached["moved"].to(acts) if "moved" in reached else self._started(count, context)
        steps = self.steps or STEPS[self.solver]
        if self.solver == "kernel":
            return self._descended(v, steps, context)
        return self._iterated(v, steps, context)

    def _started(self, count: int, context: FitContext) -> Directions:
        reached = context.reached
        drawn = reached["drawn"] if "drawn" in reached else random_units(count, context.slice.d_in, context.rng)
        v = drawn.to(context.slice.contexts.acts, copy=True)
        if self.start == "jacobian":
            keep = lambda state: context.keep({**state, "drawn": drawn})
            top = top_right(sketch(context.slice, self.rows, context.rng, no_progress, reached, keep), count)[0]
            v[: len(top)] = top
        return v

    def _descended(self, v: Directions, steps: int, context: FitContext) -> FitResult:
        v = v.clone().requires_grad_()
        optimiser = torch.optim.Adam([v], lr=self.lr)
        if "moved" in context.reached:
            resume(optimiser, v, context.reached)
            lengths = context.reached["lengths"].to(v)
        else:
            lengths = context.length.begin(v.detach())
        for index in range(begun(context), steps):
            optimiser.param_groups[0]["lr"] = self.lr * max(0.01, 1 - index / steps)
            gradient, lengths = self._gradient(v.detach(), lengths, context)
            v.grad = tangent(v.detach(), -gradient)
            optimiser.step()
            with torch.no_grad():
                v.copy_(norm_one(v))
            context.watch(index + 1, steps)
            context.keep({"index": torch.tensor(index + 1), "lengths": lengths, **ascending(optimiser, v)})
        v = v.detach()
        best = kernel.outputs(context.slice.pooled(context.length.begin(v) * v), v, self.ridge)
        return FitResult(v, torch.linalg.vector_norm(best, dim=1))

    def _gradient(self, v: Directions, lengths: Lengths, context: FitContext) -> Followed:
        """The gradient of `kernel.explained`, through Gamma and through the effects, and the next lengths.

        The passes for the effects are repeated, so that memory does not grow with the number of directions.
        """
        with torch.no_grad():
            effects = context.slice.pooled(lengths * v)
        with torch.enable_grad():
            here, there = v.detach().requires_grad_(), effects.requires_grad_()
            value = kernel.explained(there, here, self.ridge)
            direct, cotangents = torch.autograd.grad(value, (here, there))
        through, longer = context.length.follow(v, lengths, context.slice.pull_back(lengths * v, cotangents))
        return Followed(direct + lengths * through, longer)

    def _iterated(self, v: Directions, steps: int, context: FitContext) -> FitResult:
        after, length = context.slice, context.length
        u = context.reached["u"].to(v) if "u" in context.reached else norm_one(after.pooled(length.begin(v) * v))
        for index in range(begun(context), steps):
            v = torch.linalg.qr(v.T).Q.T if self.solver == "ogi" else v
            pushes = length.begin(v) * v
            turned = after.pull_back(pushes, u)  # at the old U: both are replaced at once
            u = norm_one(after.pooled(pushes))
            v = norm_one(turned)
            if self.solver == "sogi":
                v = repelled(v, torch.linalg.vector_norm(turned, dim=1))
            u, v = u.contiguous(), v.contiguous()  # files keep no order, and in another the same numbers sum to others
            context.watch(index + 1, steps)
            context.keep({"index": torch.tensor(index + 1), "moved": v, "u": u})
        return FitResult(v, amplitudes(u, v, after.pooled(length.begin(v) * v)).abs())


def begun(context: FitContext) -> int:
    """Return the step to continue from."""
    return int(context.reached.get("index", 0))


def tangent(v: Directions, gradient: Directions) -> Directions:
    """Return the part of the gradient that does not change |v|."""
    return gradient - (gradient * v).sum(1, keepdim=True) * v


def amplitudes(u: Effects, v: Directions, effects: Effects) -> Float[Tensor, " k"]:
    """Return alpha for given directions."""
    return least_squares((u @ u.T) * torch.expm1(v @ v.T), (u * effects).sum(1))


def least_squares(gram: Float[Tensor, "k k"], inner: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Solve gram x = inner, with the smallest solution where the matrix is singular (two directions became one).

    On the CPU and in double precision, since other devices only have solvers for full rank.
    """
    wide = gram.cpu().double(), inner.cpu().double().unsqueeze(1)
    return torch.linalg.lstsq(*wide, driver="gelsd").solution.squeeze(1).to(inner)
