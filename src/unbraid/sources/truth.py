"""Known factors behind activations: their names, their forest, and which are active where.

A source whose factors are known returns a `Truth` from `Source.truth()`; evals read nothing else about factors, so one
eval scores both a vector world and a language world.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor


class NoTruth(ValueError):
    """The error of a source whose factors are not known."""


@dataclass(frozen=True)
class Labelled:
    """Activations and the factors behind them, as (row, factor, magnitude) triples ordered by row."""

    x: Float[Tensor, "batch d_in"]
    rows: Int[Tensor, " active"]
    factors: Int[Tensor, " active"]
    magnitudes: Float[Tensor, " active"]
    """The strength of each active factor; 1 where it is only present or not."""
    count: int
    """Number of factors, active or not."""

    def dense(self) -> Float[Tensor, "batch factors"]:
        """Return the magnitude of every factor in every row; 0 where it is inactive. Allocates batch x factors."""
        z = torch.zeros(len(self.x), self.count)
        return z.index_put((self.rows, self.factors), self.magnitudes)


def of_factors(labelled: Labelled, factors: Sequence[int]) -> Labelled:
    """Return the same rows with these factors alone, numbered in this order."""
    place = torch.full((labelled.count,), -1)
    place[list(factors)] = torch.arange(len(factors))
    number = place[labelled.factors]
    kept = number >= 0
    return Labelled(labelled.x, labelled.rows[kept], number[kept], labelled.magnitudes[kept], len(factors))


class Truth(ABC):
    """Known factors. A child is active only where its parent is, and in worlds of loose `co_occurrence` elsewhere too.

    A factor is active or not. Most are one direction each; one that is a circle or a sphere has a subspace, in which
    its direction rotates from row to row, and is still one factor with one label.
    """

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The name of each factor."""

    @property
    @abstractmethod
    def parents(self) -> Int[Tensor, " factors"]:
        """Index of each factor's parent in the forest; -1 for roots."""

    @property
    @abstractmethod
    def directions(self) -> Float[Tensor, "factors d_in"] | None:
        """Unit direction of each factor in the activations; None when factors need not be directions at all."""

    @property
    def subspaces(self) -> Mapping[int, Float[Tensor, "dimensions d_in"]]:
        """Orthonormal basis of each factor that is not one direction, by its index: `directions` has the first row.

        Empty where there are none, or where factors need not be directions.
        """
        return {}

    @property
    def of_all_rows(self) -> bool:
        """False where some of the source's activations have no labels, so that what is scored is a part of them."""
        return True

    @abstractmethod
    def labelled(self, count: int, *, split: Literal["train", "eval"], seed: int = 0) -> Labelled:
        """Return `count` activations with their factors, the same for the same arguments; fewer when the data ends."""


def levels(parents: Int[Tensor, " factors"]) -> Int[Tensor, " factors"]:
    """Return the depth of each factor in its forest; 0 for roots."""
    return (ancestors(parents) >= 0).sum(0)


def ancestors(parents: Int[Tensor, " factors"]) -> Int[Tensor, "height factors"]:
    """Return the factors above each: its parent, the parent's parent, and so on; -1 where there are no more."""
    rows, above = [], parents
    while bool((above >= 0).any()):
        rows.append(above)
        above = torch.where(above >= 0, parents[above.clamp(min=0)], -1)
    return torch.stack(rows) if rows else torch.full((0, len(parents)), -1)
