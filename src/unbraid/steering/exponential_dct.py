"""Exponential DCT: a slice as a sum of exponentials of projections (Mack and Turner 2024, eq. 3 and Algorithm 3).

    pooled(R theta) ~ sum_l alpha_l expm1(v_l . theta) u_l

Its loss compares all derivatives at 0, the k-th over k!. For given V and U, alpha = K^-1 [u_l . pooled(R v_l)],
K = (U U') * expm1(V V'). Solvers:
    kernel  Adam on V for what is left when the best U is put in (`kernel`): no more than gradients, any number of
            directions, orthogonality relaxed by the kernel itself. Best where the slice is smooth
    ogi     V <- orthonormalised V;  u_l <- pooled(R v_l),  v_l <- gradient of u_l . pooled(R v_l), both to unit norm:
            the authors' orthogonalised gradient iteration, at most d_in directions. Best under hard gates
    sogi    the same with V pushed apart (`repulsion`) instead, any number of directions

A direction is of the side on which it was found, not always the one that moves more.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from unbraid.dictionary.initialisation import unwatched
from unbraid.effects import kernel
from unbraid.effects.independence import norm_one
from unbraid.effects.radius import random_units
from unbraid.steering.base import Fitting, Found, SliceFit, ascending, resume
from unbraid.steering.jacobian import sketch, top_right
from unbraid.steering.model_slice import Directions, Effects
from unbraid.steering.repulsion import repelled

STEPS = {"kernel": 300, "ogi": 10, "sogi": 10}


@dataclass(frozen=True, kw_only=True)
class ExponentialDct(SliceFit):
    """Strength: |alpha|."""

    solver: Literal["kernel", "ogi", "sogi"] = "kernel"
    start: Literal["random", "jacobian"] = "random"
    """Random directions, or the top right singular vectors of the Jacobian projected to `rows` rows, random ones after
    them."""
    rows: PositiveInt = 32
    """Of that projection."""
    steps: NonNegativeInt = 0
    """0: 300 of the kernel, 10 of the others, as published."""
    lr: PositiveFloat = 3e-2
    """Adam's, of the kernel, in units of a unit vector's coordinates; falls linearly to a hundredth."""
    ridge: NonNegativeFloat = 1e-2
    """Added to the kernel's diagonal."""

    def fit(self, count: int, given: Fitting) -> Found:
        if self.solver == "ogi" and count > given.slice.d_in:
            raise ValueError(
                f"OGI keeps its directions orthonormal, so there are at most {given.slice.d_in} and {count} latents "
                f"were asked for: set --dictionary.d-sae {given.slice.d_in} or less, or --dictionary.init.solver kernel"
            )
        acts, reached = given.slice.contexts.acts, given.reached
        v = reached["moved"].to(acts) if "moved" in reached else self._started(count, given)
        steps = self.steps or STEPS[self.solver]
        if self.solver == "kernel":
            return self._descended(v, steps, given)
        return self._iterated(v, steps, given)

    def _started(self, count: int, given: Fitting) -> Directions:
        reached = given.reached
        drawn = reached["drawn"] if "drawn" in reached else random_units(count, given.slice.d_in, given.rng)
        v = drawn.to(given.slice.contexts.acts, copy=True)
        if self.start == "jacobian":
            keep = lambda state: given.keep({**state, "drawn": drawn})
            top = top_right(sketch(given.slice, self.rows, given.rng, unwatched, reached, keep), count)[0]
            v[: len(top)] = top
        return v

    def _descended(self, v: Directions, steps: int, given: Fitting) -> Found:
        v = v.clone().requires_grad_()
        optimiser = torch.optim.Adam([v], lr=self.lr)
        if "moved" in given.reached:
            resume(optimiser, v, given.reached)
        for index in range(begun(given), steps):
            optimiser.param_groups[0]["lr"] = self.lr * max(0.01, 1 - index / steps)
            v.grad = tangent(v.detach(), -self._gradient(v.detach(), given))
            optimiser.step()
            with torch.no_grad():
                v.copy_(norm_one(v))
            given.watch(index + 1, steps)
            given.keep({"index": torch.tensor(index + 1), **ascending(optimiser, v)})
        v = v.detach()
        best = kernel.outputs(given.slice.pooled(given.radius * v), v, self.ridge)
        return Found(v, torch.linalg.vector_norm(best, dim=1))

    def _gradient(self, v: Directions, given: Fitting) -> Directions:
        """Of `kernel.explained`: through Gamma, and through the effects, whose passes are made again so that memory
        does not grow with the number of directions."""
        with torch.no_grad():
            effects = given.slice.pooled(given.radius * v)
        with torch.enable_grad():
            here, there = v.detach().requires_grad_(), effects.requires_grad_()
            value = kernel.explained(there, here, self.ridge)
            direct, cotangents = torch.autograd.grad(value, (here, there))
        return direct + given.radius * given.slice.pull_back(given.radius * v, cotangents)

    def _iterated(self, v: Directions, steps: int, given: Fitting) -> Found:
        after, radius = given.slice, given.radius
        u = given.reached["u"].to(v) if "u" in given.reached else norm_one(after.pooled(radius * v))
        for index in range(begun(given), steps):
            v = torch.linalg.qr(v.T).Q.T if self.solver == "ogi" else v
            turned = after.pull_back(radius * v, u)  # at the old U: both are replaced at once
            u = norm_one(after.pooled(radius * v))
            v = norm_one(turned)
            if self.solver == "sogi":
                v = repelled(v, torch.linalg.vector_norm(turned, dim=1))
            u, v = u.contiguous(), v.contiguous()  # files keep no order, and in another the same numbers sum to others
            given.watch(index + 1, steps)
            given.keep({"index": torch.tensor(index + 1), "moved": v, "u": u})
        return Found(v, amplitudes(u, v, after.pooled(radius * v)).abs())


def begun(given: Fitting) -> int:
    """The step to go on from."""
    return int(given.reached.get("index", 0))


def tangent(v: Directions, gradient: Directions) -> Directions:
    """The part of the gradient that does not change |v|."""
    return gradient - (gradient * v).sum(1, keepdim=True) * v


def amplitudes(u: Effects, v: Directions, effects: Effects) -> Float[Tensor, " k"]:
    """alpha for given directions."""
    return least_squares((u @ u.T) * torch.expm1(v @ v.T), (u * effects).sum(1))


def least_squares(gram: Float[Tensor, "k k"], inner: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The smallest solution where the matrix is singular, as it is for two directions that became one: on the CPU and
    in double precision, since other devices have solvers for full rank alone."""
    wide = gram.cpu().double(), inner.cpu().double().unsqueeze(1)
    return torch.linalg.lstsq(*wide, driver="gelsd").solution.squeeze(1).to(inner)
