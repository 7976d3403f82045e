"""A forest of factors: a child fires only where its parent does.

    P(child) = P(parent) P(child | parent),   P(root of rank r) ~ r ** -zipf

P(child | parent) stays inside (0, 1), so that parents also fire alone and absorption can be seen; in SynthSAEBench
(Chanin 2026) some child fires in 99.4 % of the samples in which its parent does.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import PositiveInt, Seed, Settings, Share, ShareBetween

LIKELIEST = 0.9
"""No root may be more probable than this."""

Span = tuple[ShareBetween, ShareBetween]
"""Smallest and largest P(child | parent) on a level."""


def spans(child_given_parent: Span | tuple[Span, ...], depth: int) -> tuple[Span, ...]:
    """Return one span for every level below the roots.

    Raises ValueError when several are given, but not one for each.
    """
    if child_given_parent and isinstance(child_given_parent[0], float | int):
        low, high = child_given_parent
        return ((float(low), float(high)),) * depth  # pyright: ignore[reportArgumentType]
    if len(child_given_parent) != depth:
        raise ValueError(
            f"child_given_parent has {len(child_given_parent)} pairs for a forest of depth {depth}; "
            "give one pair for all levels, or one for each level below the roots"
        )
    return child_given_parent  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Forest(Settings):
    """A forest of `roots` complete trees, numbered by level from the roots down, then factors outside all trees."""

    factors: PositiveInt
    roots: PositiveInt
    branching: PositiveInt
    spans: tuple[Span, ...]
    """One for each level below the roots."""
    exclusive: Share
    """Share of parents whose children never fire together."""
    seed: Seed

    def check_together(self) -> None:
        planted = sum(self.sizes)
        if planted > self.factors:
            raise ValueError(
                f"a forest of {self.roots} roots, branching {self.branching} and depth {self.depth} has {planted} "
                f"factors, more than the {self.factors} that are not dense; "
                "raise factors, or lower roots, branching or depth"
            )
        for low, high in self.spans:
            if low > high:
                raise ValueError(f"child_given_parent is {low, high}; the smaller comes first")
        mass = max((sum(self._siblings(level)) for level in range(1, self.depth + 1)), default=0.0)
        if self.exclusive > 0 and mass > 1 + 1e-9:
            raise ValueError(
                f"{self.branching} exclusive siblings would have probability {mass:.2f} together; "
                f"lower child_given_parent to a mean of at most {1 / self.branching:.2f}, or set exclusive to 0"
            )

    @property
    def depth(self) -> int:
        return len(self.spans)

    @property
    def sizes(self) -> list[int]:
        """Factors of the trees on each level."""
        return [self.roots * self.branching**level for level in range(self.depth + 1)]

    @cached_property
    def level(self) -> Int[Tensor, " factors"]:
        """Depth of each factor; 0 for roots, with children or without."""
        sizes = torch.tensor([*self.sizes, self.factors - sum(self.sizes)])
        return torch.repeat_interleave(torch.tensor([*range(self.depth + 1), 0]), sizes)

    @cached_property
    def parents(self) -> Int[Tensor, " factors"]:
        """Index of each factor's parent; -1 for roots."""
        above = torch.full((self.factors,), -1)
        start = 0
        for size in self.sizes[:-1]:
            children = torch.arange(size * self.branching)
            above[start + size + children] = start + children // self.branching
            start += size
        return above

    @cached_property
    def tops(self) -> Int[Tensor, " tops"]:
        """Factors without a parent."""
        return (self.parents < 0).nonzero().squeeze(1)

    @cached_property
    def first_children(self) -> Int[Tensor, " factors"]:
        """Index of each factor's first child, the others follow it; -1 for those without."""
        first = torch.full((self.factors,), -1)
        children = (self.parents >= 0).nonzero().squeeze(1)[:: self.branching]
        first[self.parents[children]] = children
        return first

    @cached_property
    def exclusive_parents(self) -> Bool[Tensor, " factors"]:
        """Factors whose children never fire together."""
        having = (self.first_children >= 0).nonzero().squeeze(1)
        order = torch.randperm(len(having), generator=seeding.stream(self.seed, "world/exclusive"))
        chosen = having[order[: round(self.exclusive * len(having))]]
        return torch.zeros(self.factors, dtype=torch.bool).index_fill(0, chosen, True)

    @cached_property
    def given_parent(self) -> Float[Tensor, " factors"]:
        """P(factor | its parent); 1 for roots."""
        given = torch.ones(self.factors, dtype=torch.float64)
        for level in range(1, self.depth + 1):
            siblings = torch.tensor(self._siblings(level), dtype=torch.float64)
            given[self.level == level] = siblings.repeat(self.sizes[level - 1])
        return given

    def probabilities(self, l0: float, zipf: float) -> Float[Tensor, " factors"]:
        """Return the marginal probability of each factor, `l0` in total.

        Raises ValueError when a root would fire too often.
        """
        p = torch.ones(self.factors, dtype=torch.float64)
        ranks = torch.randperm(len(self.tops), generator=seeding.stream(self.seed, "world/ranks"))
        p[self.tops] = (ranks + 1).double() ** -zipf
        for level in range(1, self.depth + 1):
            here = (self.level == level).nonzero().squeeze(1)
            p[here] = p[self.parents[here]] * self.given_parent[here]
        p = p * (l0 / p.sum())
        likeliest = float(p.max())
        if likeliest > LIKELIEST:
            raise ValueError(
                f"l0 = {l0} needs a root of probability {likeliest:.2f}, above {LIKELIEST}; "
                f"lower l0 to {l0 * LIKELIEST / likeliest:.1f} or less, add factors, or lower zipf"
            )
        return p

    def descend(
        self, rows: Int[Tensor, " active"], tops: Int[Tensor, " active"], rng: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Return (rows, factors) active on each level, given the active roots."""
        found = [(rows, tops)]
        for _ in range(self.depth):
            found.append(self._children_of(*found[-1], rng))
        return found

    def _children_of(self, rows: Tensor, factors: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        low, high = self._intervals
        having = self.first_children[factors] >= 0
        rows, factors = rows[having], factors[having]
        children = self.first_children[factors].unsqueeze(1) + torch.arange(self.branching)
        draw = torch.rand(len(rows), self.branching, generator=rng)
        # Siblings that exclude one another share a draw, and each owns an interval of it.
        draw = torch.where(self.exclusive_parents[factors].unsqueeze(1), draw[:, :1], draw)
        parent, child = ((low[children] <= draw) & (draw < high[children])).nonzero(as_tuple=True)
        return rows[parent], children[parent, child]

    @cached_property
    def _intervals(self) -> tuple[Float[Tensor, " factors"], Float[Tensor, " factors"]]:
        """The interval of the uniform draw in which each child is active.

        It begins at 0, or after the child's elder siblings where they exclude one another.
        """
        low = torch.zeros(self.factors, dtype=torch.float64)
        for level in range(1, self.depth + 1):
            sizes = torch.tensor(self._siblings(level), dtype=torch.float64)
            low[self.level == level] = (sizes.cumsum(0) - sizes).repeat(self.sizes[level - 1])
        low = low * self.exclusive_parents[self.parents.clamp(min=0)]
        return low.float(), (low + self.given_parent).float()

    def _siblings(self, level: int) -> list[float]:
        """P(child | parent) of the children of one parent."""
        low, high = self.spans[level - 1]
        if self.branching == 1:
            return [(low + high) / 2]
        return [low + (high - low) * i / (self.branching - 1) for i in range(self.branching)]
