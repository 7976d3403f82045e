"""A model slice as a function of directions: the map that fits of MELBO and DCT push and measure.

    moved_bt(theta) = G(X + theta)_bt - Y_bt - theta        theta added at every kept token of every context b
    pooled(theta)   = mean over contexts and target tokens of moved(theta)

G is the layers from the source's site to its downstream layer. `- theta` removes the skip path where G keeps the width;
the published objectives leave it in (`keep_skip`). Padding and special tokens are neither pushed nor looked at, unlike
in the released code, whose slice passes no attention mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import grad, jvp

from unbraid.effects.effect import COPIES, no_token_kept, pooled_effect
from unbraid.effects.forward_mode import forward_mode
from unbraid.effects.next_token_kl import POSITIONS, next_token_kl
from unbraid.sources.base import Contexts, Predictions

Directions = Float[Tensor, "k d_in"]
Effects = Float[Tensor, "k d_out"]
Moved = Float[Tensor, "k seq pos d_out"]


@dataclass(frozen=True, eq=False)
class Slice:
    """The downstream map of a few contexts, as a function of a push at every kept token."""

    contexts: Contexts
    targets: Bool[Tensor, "seq pos"]
    """True for the tokens at which effects are measured."""
    keep_skip: bool = False

    @classmethod
    def of(cls, contexts: Contexts, *, last: int = 0, keep_skip: bool = False) -> "Slice":
        """Measure effects at the `last` kept tokens of each context, or all (0). Raises ValueError if none is kept."""
        mask = contexts.mask
        if not bool(mask.any()):
            raise no_token_kept()
        after = mask.flip(1).cumsum(1).flip(1)
        return cls(contexts, mask & (after <= last) if last else mask, keep_skip)

    @cached_property
    def d_in(self) -> int:
        return self.contexts.acts.shape[-1]

    @cached_property
    def skips(self) -> bool:
        """True if the skip path carries the push along and it is to be removed."""
        return not self.keep_skip and self.contexts.base.shape[-1] == self.d_in

    def moved(self, directions: Directions) -> Moved:
        """Return the effect of each direction at every token, 0 where none is measured; differentiable, in one pass."""
        given = self.contexts
        push = directions.to(given.acts)[:, None, None, :] * given.mask.unsqueeze(-1)
        moved = given.downstream(given.acts + push) - given.base
        if self.skips:
            moved = moved - push
        return (moved * self.targets.unsqueeze(-1)).to(directions)

    def pooled(self, directions: Directions) -> Effects:
        return finite(self._pooled(directions), directions)

    def _pooled(self, directions: Directions) -> Effects:
        return pooled_effect(self.contexts, directions, targets=self.targets, keep_skip=self.keep_skip)

    def value_and_gradient(
        self, directions: Directions, score: Callable[[Moved, slice], Float[Tensor, " k"]]
    ) -> tuple[Float[Tensor, " k"], Directions]:
        """Return a score of each direction's effect, and its gradient by the direction.

        `score` is called with effects and the slice of directions that they belong to, `COPIES` at a time, so that
        memory does not grow with their number.
        """
        values, gradients = [], []
        for start in range(0, len(directions), COPIES):
            part = slice(start, min(start + COPIES, len(directions)))
            own = directions[part].detach().requires_grad_()
            with torch.enable_grad():
                value = score(self.moved(own), part)
                gradients.append(torch.autograd.grad(value.sum(), own)[0])
            values.append(value.detach())
        return finite(torch.cat(values), directions), finite(torch.cat(gradients), directions)

    def next_token_kl(self, directions: Directions) -> Float[Tensor, " k"]:
        """Return the mean next-token KL of each push at the tokens looked at, in nats."""
        with torch.no_grad():
            return next_token_kl([self._predictions], directions)

    def kl_and_gradient(self, directions: Directions) -> tuple[Float[Tensor, " k"], Directions]:
        """Return `next_token_kl`, and its gradient by the directions, a few at a time."""
        found = []
        for part in directions.split(max(1, POSITIONS // self.targets.numel())):
            own = part.detach().requires_grad_()
            with torch.enable_grad():
                cost = next_token_kl([self._predictions], own)
                found.append((cost.detach(), torch.autograd.grad(cost.sum(), own)[0]))
        costs, gradients = (torch.cat(column) for column in zip(*found, strict=True))
        return finite(costs, directions), finite(gradients, directions)

    @cached_property
    def _predictions(self) -> Predictions:
        return Predictions.of(self.contexts, self.targets)

    def pull_back(self, directions: Directions, cotangents: Effects) -> Directions:
        """Return the gradient of sum(cotangents * pooled(directions)) by the directions."""
        count = self.targets.sum()
        score = lambda moved, part: (moved.sum((1, 2)) * cotangents[part]).sum(1) / count
        return self.value_and_gradient(directions, score)[1]

    def first(self, directions: Directions) -> Effects:
        """Return J v: the derivative of `pooled` at 0 along each direction."""
        with forward_mode(), torch.no_grad():
            return finite(torch.cat([self._along(part) for part in directions.split(COPIES)]))

    def second(self, directions: Directions) -> Effects:
        """Return T(v, v): the second derivative of `pooled` at 0 along each direction, twice."""
        with forward_mode(), torch.no_grad():
            parts = directions.split(COPIES)
            curved = [jvp(lambda at, v=v: self._along(v, at), (at_zero(v),), (v,))[1] for v in parts]
            return finite(torch.cat(curved))

    def second_back(self, cotangents: Effects, directions: Directions) -> Directions:
        """Return T(u, v, .): the gradient at 0 of u . J(theta) v."""
        with forward_mode():
            parts = zip(cotangents.split(COPIES), directions.split(COPIES), strict=True)
            pulled = [grad(lambda at, u=u, v=v: (u * self._along(v, at)).sum())(at_zero(v)) for u, v in parts]
            return finite(torch.cat(pulled))

    def _along(self, directions: Directions, at: Directions | None = None) -> Effects:
        at = at_zero(directions) if at is None else at
        return jvp(self._pooled, (at,), (directions,))[1]


def finite(found: Tensor, pushes: Directions | None = None) -> Tensor:
    """Return `found`, a row per direction. Raises ValueError where it is not finite."""
    bad = ~torch.isfinite(found.reshape(len(found), -1)).all(1)
    if bool(bad.any()):
        what = "derivatives" if pushes is None else f"effects of pushes of size {float(pushes.norm(dim=1).max()):.3g}"
        raise ValueError(
            f"the downstream layers give {int(bad.sum())} of {len(bad)} directions {what} that are not finite; set a "
            "smaller radius, or load the model in float32"
        )
    return found


def at_zero(directions: Directions) -> Directions:
    return torch.zeros_like(directions)
