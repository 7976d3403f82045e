"""MELBO: directions whose pushes move the downstream layers most (Mack and Turner 2024, "Mechanistically eliciting …").

    max over |theta| = R of  sum_b ( sum_t |moved_bt(theta)|^p )^(1/q)

b: contexts, t: target tokens. The released code takes norms over tokens and sums over neurons (`axis`); for p = 2 that
is the same. Each step: the gradient, less its parts along earlier directions and along theta; AMSGrad; back to the
sphere. Here theta / R is what is stepped, so that the learning rate does not depend on R.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import PositiveFloat, PositiveInt, ShareBelowOne
from unbraid.dictionary.orthonormalise import polar
from unbraid.effects.independence import norm_one
from unbraid.effects.radius import random_units
from unbraid.steering.base import FitContext, FitResult, SliceFit, ascending, resume
from unbraid.steering.exponential_dct import tangent
from unbraid.steering.model_slice import Directions, Moved
from unbraid.steering.repulsion import repelled


@dataclass(frozen=True, kw_only=True)
class Melbo(SliceFit):
    """MELBO's fit. Strength: the objective."""

    orthogonality: Literal["sequential", "joint", "repelled", "none"] = "sequential"
    """sequential: one after another, each orthogonal to those before, as published. joint: all at once, retracted to
    the nearest orthonormal ones. repelled: pushed apart softly (`repulsion`), possibly more directions than dimensions.
    none: several may become the same."""
    p: Annotated[float, Ge(1)] = 2.0
    """Exponent of a token's norm; above 4 the authors found no effect, or gibberish."""
    q: Annotated[float, Ge(1)] = 2.0
    """Root taken of a context's sum; 1 <= q <= p."""
    axis: Literal["tokens", "neurons"] = "tokens"
    """Norms of each token's effect, as published; or of each neuron's over tokens, as the released code has it."""
    steps: PositiveInt = 300
    """Steps for each direction, or for all together."""
    lr: PositiveFloat = 1e-2
    """Learning rate of AMSGrad, in units of a unit vector's coordinates."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.98)

    def check_together(self) -> None:
        if self.q > self.p:
            raise ValueError(f"p = {self.p:g} and q = {self.q:g}: the objective needs 1 <= q <= p")

    def fit(self, count: int, context: FitContext) -> FitResult:
        self._check(count, context)
        acts, reached = context.slice.contexts.acts, context.reached
        earlier = reached.get("earlier", acts.new_zeros((0, context.slice.d_in))).to(acts)
        if self.orthogonality != "sequential":
            start = reached["moved"].to(acts) if reached else self._begun(count, context)
            return self._found(self._ascended(start, earlier, context, self.steps, reached), context)
        for _ in range(len(earlier), count):
            if "moved" in reached:
                start = reached["moved"].to(acts)
            else:
                start = norm_one(without(random_units(1, context.slice.d_in, context.rng).to(earlier), earlier))
            found = self._ascended(start, earlier, context, count * self.steps, reached)
            earlier, reached = torch.cat([earlier, found]), {}
            context.keep({"earlier": earlier})
        return self._found(earlier, context)

    def _begun(self, count: int, context: FitContext) -> Directions:
        return self._apart(random_units(count, context.slice.d_in, context.rng).to(context.slice.contexts.acts), None)

    def score(self, moved: Moved) -> Float[Tensor, " k"]:
        """The objective of each direction."""
        sizes = smooth_norm(moved, -1 if self.axis == "tokens" else -2)
        return sizes.pow(self.p).sum(-1).clamp_min(1e-30).pow(1 / self.q).sum(-1)

    def _check(self, count: int, context: FitContext) -> None:
        if self.orthogonality in ("sequential", "joint") and count > context.slice.d_in:
            raise ValueError(
                f"at most {context.slice.d_in} directions are orthogonal and {count} latents were requested: set "
                f"--dictionary.d-sae {context.slice.d_in} or less, or --dictionary.init.orthogonality repelled"
            )

    def _ascended(
        self,
        u: Directions,
        earlier: Float[Tensor, "earlier d_in"],
        context: FitContext,
        total: int,
        reached: Mapping[str, Tensor],
    ) -> Directions:
        """Make all steps, or those that remain after the state `reached`."""
        u = u.clone().requires_grad_()
        optimiser = torch.optim.AdamW([u], lr=self.lr, betas=self.betas, weight_decay=0.0, amsgrad=True)
        begun, size = 0, context.length
        if "moved" in reached:
            resume(optimiser, u, reached)
            begun, lengths = int(reached["index"]), reached["lengths"].to(u)
        else:
            lengths = size.begin(u.detach())
        for index in range(begun, self.steps):
            gradient = context.slice.value_and_gradient(lengths * u.detach(), lambda m, _: self.score(m))[1]
            gradient, lengths = size.follow(u.detach(), lengths, gradient)
            u.grad = -tangent(u.detach(), without(gradient, earlier))
            optimiser.step()
            with torch.no_grad():
                u.copy_(self._apart(norm_one(without(u, earlier)), torch.linalg.vector_norm(gradient, dim=1)))
            context.watch(len(earlier) * self.steps + index + 1, total)
            state = {"earlier": earlier, "index": torch.tensor(index + 1), "lengths": lengths}
            context.keep({**state, **ascending(optimiser, u)})
        return u.detach()

    def _apart(self, u: Directions, strengths: Float[Tensor, " k"] | None) -> Directions:
        if self.orthogonality == "joint":
            return polar(u.unsqueeze(0)).squeeze(0)
        if self.orthogonality == "repelled" and strengths is not None:
            return repelled(u, strengths)
        return u

    def _found(self, u: Directions, context: FitContext) -> FitResult:
        pushes = context.length.begin(u) * u
        return FitResult(u, context.slice.value_and_gradient(pushes, lambda m, _: self.score(m))[0])


def without(u: Directions, earlier: Float[Tensor, "earlier d_in"]) -> Directions:
    """Remove the parts along earlier directions, which are orthonormal; twice, so that rounding does not build up."""
    for _ in range(2):
        u = u - u @ earlier.T @ earlier
    return u


def smooth_norm(moved: Tensor, axis: int) -> Tensor:
    """Return the norm, with a gradient of 0 instead of NaN where nothing moved."""
    return moved.square().sum(axis).clamp_min(1e-30).sqrt()
