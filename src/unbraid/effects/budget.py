"""A budget for pushes: the length at which a push along a direction costs so much, and no more.

    cost(s v) = budget,   the smallest such s that is met on the way up,   v unit vectors

The cost is any function of pushes; the next-token KL in nats (`next_token_kl`) says what a language model notices, so
that directions are compared at equal disturbance. A strong direction gets a short push, a weak one a long push, and
one that has not spent the budget at the largest length is reported as out of reach.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.config.settings import PositiveFloat, checked

LIMIT = 10.0
"""Largest length looked at, in median norms of the activations: where a calibrated radius is looked for too."""
FIRST = 2.0**-7
"""First length looked at, as a share of the largest."""
GROWTH = (1.5, 4.0)
"""By what factor a length grows until the budget is met. Below it, costs grow with the square of the length."""
TOLERANCE = 0.02
"""Largest error of the cost that is reached, relative to the budget."""
STEPS = 90
"""Most looks inside brackets: at every third one they are halved, and 1e-6 of a factor of four takes 21 halvings."""

Directions = Float[Tensor, "k d_in"]
Cost = Callable[[Directions], Float[Tensor, " k"]]
"""Returns the cost of each push."""


class Spending(NamedTuple):
    """For each direction the length of its push, and the cost that it reaches."""

    length: Float[Tensor, " k"]
    """In raw units; the largest one looked at where the budget is out of reach."""
    cost: Float[Tensor, " k"]
    """The budget to within `TOLERANCE`; less where the cost jumps over it, or the budget is out of reach."""
    reached: Bool[Tensor, " k"]
    """False where the longest push costs less than the budget."""

    def pushes(self, directions: Directions) -> Directions:
        """Return the pushes themselves."""
        return self.length.to(directions).unsqueeze(1) * directions


@torch.no_grad()
def spend(cost: Cost, directions: Directions, budget: float, *, longest: float) -> Spending:
    """Find for each unit vector the length at which it costs the budget, all directions of a step at once.

    Give -v to push the other way. A push after which the cost is not finite counts as beyond the budget.

    Raises:
        ValueError: for a budget or largest length (`longest`, in raw units) that is not above 0.
    """
    checked("budget", budget, PositiveFloat)
    checked("longest", longest, PositiveFloat)
    search = LengthSearch(cost, directions, budget, longest)
    search.climb()
    for step in range(STEPS):
        if not search.narrow(halve=step % 3 == 2):
            break
    return search.found()


class LengthSearch:
    """The state of a search: for each direction the longest push known to be within budget, and the shortest beyond."""

    def __init__(self, cost: Cost, directions: Directions, budget: float, longest: float) -> None:
        self.cost, self.directions, self.budget, self.longest = cost, directions, budget, longest
        zeros = directions.new_zeros(len(directions), dtype=torch.float64)
        self.low, self.at_low = zeros.clone(), zeros.clone()
        self.high, self.at_high = zeros + math.inf, zeros + math.inf

    def climb(self) -> None:
        """Lengthen every push until it costs the budget, or is as long as it may be."""
        length = torch.full_like(self.low, FIRST * self.longest)
        pending = torch.ones_like(self.low, dtype=torch.bool)
        while bool(pending.any()):
            self.look(length, pending)
            pending &= ~self.bracketed & (length < self.longest)
            growth = (self.budget / self.at_low.clamp_min(1e-30)).sqrt().clamp(*GROWTH)
            length = torch.where(pending, (growth * length).clamp_max(self.longest), length)

    def narrow(self, *, halve: bool) -> bool:
        """Look once inside every bracket that is still too wide; return False when there is none.

        Inside it, log cost is taken for linear in log length, or, every third time (`halve`), the bracket is halved:
        so it shrinks whatever the cost is like.
        """
        pending = self.bracketed & ~self.close()
        if not bool(pending.any()):
            return False
        bottom = torch.where(self.low > 0, self.low, self.high / 1e3)
        middle = (bottom * self.high).sqrt()
        slope = (self.at_high / self.at_low).log() / (self.high / self.low).log()
        slope = torch.where((self.low > 0) & slope.isfinite() & (slope > 0), slope, 2.0)
        guess = self.high * (self.budget / self.at_high) ** (1 / slope)
        inside = guess.isfinite() & (guess > self.low) & (guess < self.high)
        guess = torch.where(inside & (not halve or self.low == 0), guess, middle)
        self.look(guess, pending)
        return True

    def look(self, length: Float[Tensor, " k"], which: Bool[Tensor, " k"]) -> None:
        """Measure the cost of some directions at these lengths, and move the ends of their brackets there."""
        pushes = length[which].to(self.directions).unsqueeze(1) * self.directions[which]
        found = torch.full_like(self.low, math.nan)
        found[which] = self.cost(pushes).to(found)
        beyond = which & ~(found < self.budget)
        within = which & ~beyond
        self.low, self.at_low = torch.where(within, length, self.low), torch.where(within, found, self.at_low)
        self.high = torch.where(beyond, length, self.high)
        self.at_high = torch.where(beyond, found.nan_to_num(math.inf, math.inf), self.at_high)

    @property
    def bracketed(self) -> Bool[Tensor, " k"]:
        return self.high.isfinite()

    def close(self) -> Bool[Tensor, " k"]:
        """True where one end costs the budget, or the ends are so near that the cost jumps between them."""
        return (self._off(self.at_low) <= TOLERANCE) | (self._off(self.at_high) <= TOLERANCE) | self._touching()

    def _touching(self) -> Bool[Tensor, " k"]:
        return self.high - self.low <= 1e-6 * self.high

    def _off(self, cost: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        return (cost - self.budget).abs() / self.budget

    def found(self) -> Spending:
        """Return the nearer end of every bracket, the lower one where the cost jumps over the budget."""
        upper = self.bracketed & (self._off(self.at_high) < self._off(self.at_low)) & self.at_high.isfinite()
        upper &= self._off(self.at_high) <= TOLERANCE
        length, cost = torch.where(upper, self.high, self.low), torch.where(upper, self.at_high, self.at_low)
        return Spending(length.to(self.directions), cost.to(self.directions), self.bracketed)


def require_reached(found: Spending, budget: float, names: Sequence[object], *, longest: str) -> None:
    """Raise ValueError where some directions do not spend the budget. `longest`: the largest length, in words."""
    missing = (~found.reached).nonzero().flatten().tolist()
    if missing:
        some = ", ".join(str(names[i]) for i in missing[:5]) + (", …" if len(missing) > 5 else "")
        most = float(found.cost[~found.reached].max())
        raise ValueError(
            f"a budget of {budget:g} nats is beyond reach of {some}: a push of {longest} costs {most:.2g} at most; ask "
            "for a smaller budget, or leave out what does so little"
        )
