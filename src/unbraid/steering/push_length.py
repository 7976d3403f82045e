"""The lengths of the pushes of a fit: one radius for all, or each its own, at which it spends a KL budget.

    fixed   theta_j = R v_j
    budget  theta_j = l_j v_j,   KL(l_j v_j) = budget, or l_j = R where that costs less

KL is next-token KL at the tokens looked at, in nats. At a fixed radius the largest effects are those of pushes that
break the model. On the surface of equal KL the gradient of a score s is g_s - (g_s . theta / g_kl . theta) g_kl: what
is left of it when the length follows. Where s grows with the length and KL with its square, that is the gradient of
log s - 1/2 log KL, the effect per unit of sqrt(KL).

A radius by which random directions spend the budget would not do: fitted ones of that length break the model. Without a
largest length, what is fitted to cost little on a few texts gets as long as the activations themselves, so R ends every
length. Neither keeps a fit from learning the texts: of two, what costs .5 nats there costs 1.9 on others, and breaks
what the model writes. Give it many, and find the length for use on others (`unbraid steer --kl`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.effects.budget import spend
from unbraid.steering.model_slice import Directions, Slice

Lengths = Float[Tensor, "k 1"]
LEAST_EXPONENT = 0.5
"""Smallest growth of KL with length that is believed; it is 2 for small pushes, and hardly any where KL saturates."""
LARGEST_STEP = math.log(1.5)
"""By how much a length follows its direction in one step, as a logarithm."""


class Followed(NamedTuple):
    """The gradient along which directions may move, and the lengths at which they go on."""

    gradient: Directions
    lengths: Lengths


class PushLength(ABC):
    """The base of rules for the lengths of pushes."""

    @abstractmethod
    def begin(self, directions: Directions) -> Lengths:
        """Return the length of a push along each unit vector."""

    @abstractmethod
    def follow(self, directions: Directions, lengths: Lengths, gradient: Directions) -> Followed:
        """Return the part of a score's gradient that keeps to the rule, and the next lengths. `gradient`: by the
        pushes, at these lengths."""


@dataclass(frozen=True)
class FixedRadius(PushLength):
    """One radius for all directions."""

    radius: float

    def begin(self, directions: Directions) -> Lengths:
        return directions.new_full((len(directions), 1), self.radius)

    def follow(self, directions: Directions, lengths: Lengths, gradient: Directions) -> Followed:
        return Followed(gradient, lengths)


@dataclass(frozen=True, eq=False)
class KlBudget(PushLength):
    """Each direction's own length, at which it spends a budget of next-token KL, or the longest if that costs less."""

    slice: Slice
    nats: float
    longest: float
    """In raw units."""

    def begin(self, directions: Directions) -> Lengths:
        found = spend(self.slice.next_token_kl, directions, self.nats, longest=self.longest)
        return found.length.to(directions).unsqueeze(1)

    def follow(self, directions: Directions, lengths: Lengths, gradient: Directions) -> Followed:
        pushes = lengths * directions
        cost, slope = self.slice.kl_and_gradient(pushes)
        cost = cost.unsqueeze(1).clamp_min(1e-12)
        rate = (slope * pushes).sum(1, keepdim=True).maximum(LEAST_EXPONENT * cost)
        at_end = (lengths >= (1 - 1e-6) * self.longest) & (cost < self.nats)
        price = torch.where(at_end, 0.0, (gradient * pushes).sum(1, keepdim=True) / rate)
        newton = (self.nats / cost).log() * cost / rate
        longer = lengths * newton.clamp(-LARGEST_STEP, LARGEST_STEP).exp()
        return Followed(gradient - price * slope, longer.clamp_max(self.longest))
