"""Worlds: synthetic activations whose factors, hierarchy and downstream map we know.

    x = bias + sum_i z_i d_i + noise,   y = x + sum_i gate_i effect_i + sum_(i,j) gate_i gate_j pair_effect_ij

Factors form a forest (a child is active only where its parent is); roots follow a Zipf law and fire together by a
Gaussian copula; some may be dense, or circles and spheres. After SynthSAEBench (Chanin 2026), but parents also fire
alone, so that absorption can be seen, and there are downstream layers, so that there is something to steer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.config.serialise import added
from unbraid.config.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    ShareAboveZero,
    ShareBelowOne,
)
from unbraid.sources.base import Contexts, Counterfactuals, Split
from unbraid.sources.synthetic import Synthetic
from unbraid.sources.truth import Labelled
from unbraid.sources.world.active_factors import FactorSampler
from unbraid.sources.world.copula import Copula
from unbraid.sources.world.downstream import Downstream, Gate, check_effects, in_subspace
from unbraid.sources.world.forest import Forest, Span, spans
from unbraid.sources.world.geometry import check_coherence, random_units, units
from unbraid.sources.world.magnitudes import Kind, Magnitudes
from unbraid.sources.world.manifolds import Manifold, Manifolds, planted
from unbraid.sources.world.minimal_pairs import without_one
from unbraid.sources.world.sampling import Sample, Sampler
from unbraid.sources.world.spectrum import Spectrum, check_room


@dataclass(frozen=True, kw_only=True)
class World(Synthetic):
    """A world of synthetic activations: factors in a forest, their directions, and a downstream map."""

    kind: ClassVar[str] = "world"

    factors: Annotated[int, Ge(1), Le(2**24)] = 256
    """Number of true directions. Those the forest does not use are roots without children."""
    d_in: PositiveInt = 64  # pyright: ignore[reportIncompatibleMethodOverride]
    """Width of the activations."""
    coherence: Share | None = None
    """Largest |cos| of two directions, before `spectrum` maps them: they are moved apart until none is above; None
    leaves them random, 0 makes them orthonormal."""
    spectrum: Share = added(0.0)
    """How anisotropic the activations are: 0 flat, 1 like a language model's, whose first principal direction has 15 to
    30 % of the variance."""
    l0: PositiveFloat = 8.0
    """Expected number of active factors a sample, not counting dense ones; sets the scale of the root probabilities."""
    roots: PositiveInt = 16
    """Factors at the top of the forest that have children."""
    branching: PositiveInt = 2
    """Children of every factor above the last level."""
    depth: Annotated[int, Ge(0), Le(64)] = 2
    """Levels below the roots; 0 for a world without hierarchy."""
    child_given_parent: Span | tuple[Span, ...] = (0.2, 0.8)
    """Smallest and largest P(child | parent), for all levels or a pair for each; the children of one parent are spread
    evenly between them."""
    exclusive: Share = 0.0
    """Share of parents whose children never fire together."""
    zipf: NonNegativeFloat = 0.5
    """Root probabilities fall as rank ** -zipf; 0 makes them equal."""
    correlation: ShareBelowOne = 0.1
    """Correlation of the roots of a group in the copula, in [0, 1); 0 makes all independent."""
    correlation_groups: PositiveInt = 32
    """Groups of roots, of equal size; as many as there are roots at most."""
    correlation_rank: PositiveInt = 8
    """Dimensions of what the groups have in common: fewer than groups correlate them too, for better or worse."""
    independent: bool = False
    """Factors fire with the same probabilities, but ignore forest and copula: the factorial twin."""
    co_occurrence: Share = added(1.0)
    """From the twin (0) to the forest (1): in so large a share of the samples factors follow forest and copula, in the
    others each is active on its own, with the same probability."""
    magnitudes: Kind = "lognormal"
    """Distribution of an active factor's magnitude. Its mean is 1."""
    spread: NonNegativeFloat = 0.25
    """Standard deviation of the magnitudes; constant ones have none."""
    levels: PositiveInt = 4
    """Equally likely values of quantised magnitudes."""
    dense: NonNegativeInt = 0
    """Factors, the last ones, that are active most of the time, independent of all others."""
    dense_probability: tuple[ShareAboveZero, ShareAboveZero] = (0.5, 0.9)
    """Smallest and largest probability of a dense factor, evenly spread; 1 is always on."""
    dense_spread: NonNegativeFloat = 0.5
    """Dense magnitudes are |1 + dense_spread e|, e normal."""
    circles: NonNegativeInt = 0
    """Factors that are a circle of directions in a plane: before the dense ones, without children."""
    spheres: NonNegativeInt = 0
    """Factors that are a sphere of directions in three dimensions: after the circles."""
    noise: NonNegativeFloat = 0.02
    """Standard deviation of Gaussian noise in each coordinate."""
    bias: NonNegativeFloat = 0.5
    """Norm of the constant added to all activations."""
    effective: Share = 0.75
    """Share of factors with an effect downstream."""
    effect: NonNegativeFloat = 1.0
    """Norm of a factor's effect at gate 1."""
    effect_dimensions: NonNegativeInt = 0
    """Dimensions of the subspace in which all effects lie; 0 for all of d_in."""
    gate: Gate = "smooth"
    """The way the downstream layers read a factor: additive (linear), or above a threshold, smooth or hard."""
    threshold: float = 0.5
    """Magnitude at which a factor's gate opens."""
    sharpness: PositiveFloat = 8.0
    """Steepness of smooth gates: how far they are from linear."""
    interactions: NonNegativeInt = 16
    """Number of planted pairs of factors whose joint effect is not the sum of their own."""
    interaction: NonNegativeFloat = 0.5
    """Norm of a pair's joint effect when both gates are 1."""
    context_size: PositiveInt = 16
    """Independent samples in a sequence for slice terms: nothing attends in a world."""
    block_rows: PositiveInt = 16_384
    """Samples in a block."""
    seed: Seed = 0
    """Directions, ranks, pairs and effects. Samples follow the seed of the data, not this one."""

    def check_together(self) -> None:
        check(self)

    def twin(self) -> "World":
        """Return the world of independent factors with the same probabilities, directions and effects."""
        return replace(self, independent=True)

    @cached_property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(f"factor {i}" for i in range(self.factors))

    @cached_property
    def level(self) -> Int[Tensor, " factors"]:
        """Depth of each factor in the forest; 0 for roots, with children or without."""
        return self._planted(self._forest.level, 0)

    @cached_property
    def parents(self) -> Int[Tensor, " factors"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Index of each factor's parent; -1 for roots."""
        return self._planted(self._forest.parents, -1)

    @cached_property
    def first_children(self) -> Int[Tensor, " factors"]:
        """Index of each factor's first child, the others follow it; -1 for those without."""
        return self._planted(self._forest.first_children, -1)

    @cached_property
    def exclusive_parents(self) -> Bool[Tensor, " factors"]:
        """Factors whose children never fire together."""
        return self._planted(self._forest.exclusive_parents, False)

    @cached_property
    def given_parent(self) -> Float[Tensor, " factors"]:
        """P(factor | its parent); 1 for roots."""
        given = self._planted(self._forest.given_parent, 1)
        return torch.where(self.parents < 0, given, self.probabilities.lerp(given, self._planted_share))

    @cached_property
    def probabilities(self) -> Float[Tensor, " factors"]:
        """Marginal probability of each factor, exact: P(child) = P(parent) P(child | parent)."""
        dense = torch.linspace(*self.dense_probability, self.dense, dtype=torch.float64)
        return torch.cat([self._forest.probabilities(self.l0, self.zipf), dense])

    @cached_property
    def directions(self) -> Float[Tensor, "factors d_in"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Unit vectors; with more factors than dimensions they overlap (superposition).

        The direction of a circle or sphere is one of its points: `manifolds` has the others.
        """
        return self._axes[: self.factors]

    @cached_property
    def readers(self) -> Float[Tensor, "factors d_in"]:
        """The vectors by which layers downstream read factors: the directions, where the spectrum is flat."""
        if self._spectrum is None:
            return self.directions
        return self._spectrum.readers(self.directions.unsqueeze(1)).squeeze(1)

    @property
    def subspaces(self) -> Mapping[int, Float[Tensor, "dimensions d_in"]]:
        return {manifold.factor: manifold.basis for manifold in self.manifolds}

    @cached_property
    def manifolds(self) -> tuple[Manifold, ...]:
        """The circles, then the spheres."""
        ranks = [2] * self.circles + [3] * self.spheres
        first, bases = self._manifolds.first, self._manifolds.bases
        return tuple(Manifold(first + i, bases[i, :rank]) for i, rank in enumerate(ranks))

    @cached_property
    def offset(self) -> Float[Tensor, " d_in"]:
        """The constant in all activations."""
        return self.bias * random_units(1, self.d_in, self._stream("bias"))[0]

    @cached_property
    def effects(self) -> Float[Tensor, "factors d_in"]:
        """The vector that each factor adds downstream at gate 1; zero for those without effect."""
        silent = self._order("effective")[round(self.effective * self.factors) :]
        return (self.effect * self._effect_units("effects", self.factors)).index_fill(0, silent, 0.0)

    @cached_property
    def pairs(self) -> Int[Tensor, "pairs 2"]:
        """Factors with a planted interaction: both have an effect, and no factor is in two pairs."""
        chosen = self._order("effective")[: 2 * self.interactions]
        return chosen.view(2, self.interactions).T.contiguous()

    @cached_property
    def pair_effects(self) -> Float[Tensor, "pairs d_in"]:
        """The vector that each pair adds downstream, on top of its factors' own, when both gates are 1."""
        return self.interaction * self._effect_units("pair-effects", self.interactions)

    def gates(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        """Return the value of each factor's gate."""
        return self._downstream.gates(acts)

    def readouts(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        """Return the norm of each factor's own contribution downstream: gate_i |effect_i|."""
        return self._downstream.readouts(acts)

    def downstream(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold d_in"]:
        """Return what the downstream layers give: the activations, the factors' effects, and the pairs'."""
        return self._downstream(acts)

    def intervene(
        self, acts: Float[Tensor, "*fold d_in"], factor: int, magnitude: float | Float[Tensor, "*fold"]
    ) -> Float[Tensor, "*fold d_in"]:
        """Return the change downstream when a factor's direction, times `magnitude`, is added to the activations.

        To set a factor that has magnitude z to m, add m - z. Raises ValueError for a factor there is not.
        """
        if not 0 <= factor < self.factors:
            raise ValueError(f"there is no factor {factor}: this world's are 0 to {self.factors - 1}")
        added = torch.as_tensor(magnitude).to(acts).unsqueeze(-1) * self.directions[factor].to(acts)
        return self.downstream(acts + added) - self.downstream(acts)

    def sample(self, count: int, *, seed: int, name: str = "sample") -> Sample:
        """Return `count` samples of stream `name`, with their factors. Allocates count x factors."""
        x, active = self._sampler.draw(count, seeding.stream(seed, name))
        z = torch.zeros(count, self.factors)
        return Sample(x, z.index_put((active.rows, active.factors), active.magnitudes))

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        x, active = self._sampler.draw(count, seeding.stream(seed, f"labelled/{split}"))
        return Labelled(x, active.rows, active.factors, active.magnitudes, self.factors)

    def samples(self, index: int, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        return self._sampler.draw(self.block_rows, seeding.stream(seed, block_stream(split, index)))[0]

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        x, _ = self._sampler.draw(count * self.context_size, seeding.stream(seed, f"contexts/{split}"))
        acts = x.view(count, self.context_size, self.d_in)
        mask = torch.ones(count, self.context_size, dtype=torch.bool)
        return Contexts(acts, mask, self.downstream(acts), self.downstream)

    def counterfactuals(self, count: int, *, split: Split, seed: int) -> Counterfactuals:
        """Return those of `count` rows that have a factor that can be removed, and the same rows without it."""
        rng = seeding.stream(seed, f"counterfactuals/{split}")
        x, active = self._sampler.draw(count, rng)
        x, changed, _ = without_one(x, active, self.directions, self._manifolds, self.parents, rng)
        return Counterfactuals(x, changed)

    def corrupted(self, count: int, *, share: float, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        """Return rows in which this share of the active factors is replaced by others, drawn by frequency.

        The forest is ignored, and factors on manifolds stay.
        """
        return self._sampler.corrupted(count, share, self.probabilities, seeding.stream(seed, f"corrupted/{split}"))

    @property
    def _planted_share(self) -> float:
        """Share of samples that follow forest and copula."""
        return 0.0 if self.independent else float(self.co_occurrence)

    def _stream(self, name: str) -> torch.Generator:
        return seeding.stream(self.seed, f"world/{name}")

    def _order(self, name: str) -> Int[Tensor, " factors"]:
        return torch.randperm(self.factors, generator=self._stream(name))

    def _effect_units(self, name: str, count: int) -> Float[Tensor, "count d_in"]:
        subspace = self._stream("effect-subspace")
        return in_subspace(count, self.d_in, self.effect_dimensions, subspace, self._stream(name))

    def _planted(self, of_forest: Tensor, alone: int) -> Tensor:
        """A column of the forest with the dense factors after it; in the twin every factor is alone."""
        if self._planted_share == 0:
            return torch.full((self.factors,), alone, dtype=of_forest.dtype)
        return torch.cat([of_forest, torch.full((self.dense,), alone, dtype=of_forest.dtype)])

    @cached_property
    def _forest(self) -> Forest:
        levels = spans(self.child_given_parent, self.depth)
        return Forest(self.factors - self.dense, self.roots, self.branching, levels, self.exclusive, self.seed)

    @cached_property
    def _axes(self) -> Float[Tensor, "axes d_in"]:
        """Directions of all factors, then the other axes of circles and spheres."""
        found = units(axes(self), self.d_in, self.coherence, self._stream("directions"))
        return found if self._spectrum is None else self._spectrum.stretched(found)

    @cached_property
    def _spectrum(self) -> Spectrum | None:
        """The map of the directions; None where the spectrum is flat."""
        if self.spectrum == 0:
            return None
        return Spectrum.of(self.d_in, self.spectrum, self._stream("spectrum"))

    @cached_property
    def _manifolds(self) -> Manifolds:
        first = self.factors - self.dense - self.circles - self.spheres
        return planted(self._axes, first, self.factors, self.circles, self.spheres, self._spectrum)

    @cached_property
    def _factor_sampler(self) -> FactorSampler:
        sparse, dense = self.probabilities.split([self.factors - self.dense, self.dense])
        roots = self._forest.tops
        groups = torch.randperm(len(roots), generator=self._stream("groups")) % self.correlation_groups
        loadings = random_units(int(groups.max()) + 1, self.correlation_rank, self._stream("loadings"))
        return FactorSampler(
            forest=self._forest,
            copula=Copula(sparse[roots], self.correlation, groups, loadings),
            sparse=sparse,
            dense=dense,
            co_occurrence=self._planted_share,
            magnitudes=Magnitudes(self.magnitudes, self.spread, self.levels),
            dense_spread=self.dense_spread,
            manifolds=self._manifolds,
        )

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self._factor_sampler, self.directions, self.offset, self.noise)

    @cached_property
    def _downstream(self) -> Downstream:
        return Downstream(
            offset=self.offset,
            readers=self.readers,
            manifolds=self._manifolds,
            effects=self.effects,
            pairs=self.pairs,
            pair_effects=self.pair_effects,
            gate=self.gate,
            threshold=self.threshold,
            sharpness=self.sharpness,
        )


def block_stream(split: Split, index: int) -> str:
    """Return the name of the random stream that block `index` of a split is drawn from."""
    return f"samples/{split}/{index}"


def axes(world: World) -> int:
    """Return the number of directions a world needs: one per factor, one more for a circle, two more for a sphere."""
    return world.factors + world.circles + 2 * world.spheres


def check(world: World) -> None:
    """Raise ValueError, saying what to change, for settings that no world can have."""
    low, high = world.dense_probability
    if low > high:
        raise ValueError(f"dense_probability is {low, high}; the smaller comes first")
    forest = world._forest
    alone = forest.factors - sum(forest.sizes)
    if world.circles + world.spheres > alone:
        raise ValueError(
            f"{world.circles} circles and {world.spheres} spheres need as many factors that are neither dense nor in "
            f"the forest, and there are {alone}; raise factors"
        )
    if world.coherence is not None:
        check_coherence(axes(world), world.d_in, world.coherence)
    needed = 3 if world.spheres else 2 if world.circles else 1
    if world.d_in < needed:
        raise ValueError(f"circles lie in 2 and spheres in 3 dimensions, and d_in is {world.d_in}; raise d_in")
    Magnitudes(world.magnitudes, world.spread, world.levels)
    active = forest.probabilities(world.l0, world.zipf).sum() + world.dense * sum(world.dense_probability) / 2
    if world.spectrum > 0:
        check_room(world.d_in, world.spectrum, active=float(active), noise=world.noise)
    check_effects(round(world.effective * world.factors), world.interactions, world.effect_dimensions, world.d_in)
