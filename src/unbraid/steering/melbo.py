"""MELBO: directions whose pushes move the layers after most (Mack and Turner 2024, "Mechanistically eliciting …").

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
from unbraid.steering.base import Fitting, Found, SliceFit, ascending, resume
from unbraid.steering.exponential_dct import tangent
from unbraid.steering.model_slice import Directions, Moved
from unbraid.steering.repulsion import repelled


@dataclass(frozen=True, kw_only=True)
class Melbo(SliceFit):
    """Strength: the objective."""

    orthogonality: Literal["sequential", "joint", "repelled", "none"] = "sequential"
    """sequential: one after another, each orthogonal to those before, as published. joint: all at once, retracted to
    the nearest orthonormal ones. repelled: pushed apart softly (`repulsion`), more directions than dimensions if
    wanted. none: several may become the same."""
    p: Annotated[float, Ge(1)] = 2.0
    """Of a token's norm; above 4 the authors found no effect, or gibberish."""
    q: Annotated[float, Ge(1)] = 2.0
    """1/q-th power of a context's sum; 1 <= q <= p."""
    axis: Literal["tokens", "neurons"] = "tokens"
    """Norms of each token's effect, as published; or of each neuron's over tokens, as the released code has it."""
    steps: PositiveInt = 300
    """Of each direction, or of all together."""
    lr: PositiveFloat = 1e-2
    """AMSGrad's, in units of a unit vector's coordinates."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.98)

    def check_together(self) -> None:
        if self.q > self.p:
            raise ValueError(f"p = {self.p:g} and q = {self.q:g}: the objective needs 1 <= q <= p")

    def fit(self, count: int, given: Fitting) -> Found:
        self._check(count, given)
        acts, reached = given.slice.contexts.acts, given.reached
        earlier = reached.get("earlier", acts.new_zeros((0, given.slice.d_in))).to(acts)
        if self.orthogonality != "sequential":
            start = reached["moved"].to(acts) if reached else self._begun(count, given)
            return self._found(self._ascended(start, earlier, given, self.steps, reached), given)
        for _ in range(len(earlier), count):
            if "moved" in reached:
                start = reached["moved"].to(acts)
            else:
                start = norm_one(without(random_units(1, given.slice.d_in, given.rng).to(earlier), earlier))
            found = self._ascended(start, earlier, given, count * self.steps, reached)
            earlier, reached = torch.cat([earlier, found]), {}
            given.keep({"earlier": earlier})
        return self._found(earlier, given)

    def _begun(self, count: int, given: Fitting) -> Directions:
        return self._apart(random_units(count, given.slice.d_in, given.rng).to(given.slice.contexts.acts), None)

    def score(self, moved: Moved) -> Float[Tensor, " k"]:
        """The objective of each direction."""
        sizes = smooth_norm(moved, -1 if self.axis == "tokens" else -2)
        return sizes.pow(self.p).sum(-1).clamp_min(1e-30).pow(1 / self.q).sum(-1)

    def _check(self, count: int, given: Fitting) -> None:
        if self.orthogonality in ("sequential", "joint") and count > given.slice.d_in:
            raise ValueError(
                f"at most {given.slice.d_in} directions are orthogonal and {count} latents were asked for: set "
                f"--dictionary.d-sae {given.slice.d_in} or less, or --dictionary.init.orthogonality repelled"
            )

    def _ascended(
        self,
        u: Directions,
        earlier: Float[Tensor, "earlier d_in"],
        given: Fitting,
        total: int,
        reached: Mapping[str, Tensor],
    ) -> Directions:
        """All steps, or those left after what was `reached`."""
        u = u.clone().requires_grad_()
        optimiser = torch.optim.AdamW([u], lr=self.lr, betas=self.betas, weight_decay=0.0, amsgrad=True)
        begun = 0
        if "moved" in reached:
            resume(optimiser, u, reached)
            begun = int(reached["index"])
        for index in range(begun, self.steps):
            gradient = given.slice.value_and_gradient(given.radius * u.detach(), lambda m, _: self.score(m))[1]
            u.grad = -tangent(u.detach(), without(gradient, earlier))
            optimiser.step()
            with torch.no_grad():
                u.copy_(self._apart(norm_one(without(u, earlier)), torch.linalg.vector_norm(gradient, dim=1)))
            given.watch(len(earlier) * self.steps + index + 1, total)
            given.keep({"earlier": earlier, "index": torch.tensor(index + 1), **ascending(optimiser, u)})
        return u.detach()

    def _apart(self, u: Directions, strengths: Float[Tensor, " k"] | None) -> Directions:
        if self.orthogonality == "joint":
            return polar(u.unsqueeze(0)).squeeze(0)
        if self.orthogonality == "repelled" and strengths is not None:
            return repelled(u, strengths)
        return u

    def _found(self, u: Directions, given: Fitting) -> Found:
        return Found(u, given.slice.value_and_gradient(given.radius * u, lambda m, _: self.score(m))[0])


def without(u: Directions, earlier: Float[Tensor, "earlier d_in"]) -> Directions:
    """Less the parts along earlier directions, which are orthonormal; twice, so that rounding does not build up."""
    for _ in range(2):
        u = u - u @ earlier.T @ earlier
    return u


def smooth_norm(moved: Tensor, axis: int) -> Tensor:
    """The norm, with a gradient of 0 instead of NaN where nothing moved."""
    return moved.square().sum(axis).clamp_min(1e-30).sqrt()
