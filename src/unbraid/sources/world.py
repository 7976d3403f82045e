"""Worlds: synthetic activations whose factors, hierarchy and downstream map we know.

    x = bias + sum_i z_i d_i + noise,   y = x + sum_i gate_i effect_i + sum_(i,j) gate_i gate_j pair_effect_ij,
    gate_i = softplus(sharpness (d_i . (x - bias) - threshold)) / sharpness

Factors form a forest (a child is active only where its parent is); roots follow a Zipf law and fire together by a
Gaussian copula. After SynthSAEBench (Chanin 2026), but P(child | parent) stays inside (0, 1), so that parents also fire
alone and absorption can be seen, and there are layers after, so that there is something to steer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, softplus

from unbraid import seeding
from unbraid.config import fingerprint
from unbraid.source import Batch, Block, Contexts, Source, Split
from unbraid.truth import Labelled, Truth

CHUNK_ENTRIES = 2**22
"""Roots times rows drawn at once: 16 MB."""
LIKELIEST = 0.9
"""No root may be more probable than this."""


@dataclass(frozen=True)
class Sample:
    """Activations, and the factors behind them."""

    x: Float[Tensor, "batch d_in"]
    z: Float[Tensor, "batch factors"]
    """Magnitude of each factor; 0 where it is inactive."""


class Firings(NamedTuple):
    """Active factors of some rows, row by row."""

    rows: Int[Tensor, " active"]
    factors: Int[Tensor, " active"]
    magnitudes: Float[Tensor, " active"]


@dataclass(frozen=True, kw_only=True)
class World(Source, Truth):
    factors: int = 256
    """Number of true directions. Those the forest does not use are roots without children."""
    d_in: int = 64  # pyright: ignore[reportIncompatibleMethodOverride]
    """Width of the activations."""
    l0: float = 8.0
    """Expected number of active factors a sample; sets the scale of the root probabilities."""
    roots: int = 16
    """Factors at the top of the forest that have children."""
    branching: int = 2
    """Children of every factor above the last level."""
    depth: int = 2
    """Levels below the roots; 0 for a world without hierarchy."""
    child_given_parent: tuple[float, float] = (0.2, 0.8)
    """Smallest and largest P(child | parent); the children of one parent are spread evenly between them."""
    exclusive: float = 0.0
    """Share of parents whose children never fire together."""
    zipf: float = 0.5
    """Root probabilities fall as rank ** -zipf; 0 makes them equal."""
    correlation: float = 0.1
    """Share of the copula's variance that roots have in common, in [0, 1); 0 makes them independent."""
    correlation_rank: int = 8
    """Dimensions of what roots have in common."""
    magnitudes: Literal["lognormal", "uniform"] = "lognormal"
    """Distribution of an active factor's magnitude. Its mean is 1."""
    spread: float = 0.25
    """Standard deviation of the magnitudes."""
    noise: float = 0.02
    """Standard deviation of Gaussian noise in each coordinate."""
    bias: float = 0.5
    """Norm of the constant added to all activations."""
    effective: float = 0.75
    """Share of factors with an effect downstream."""
    effect: float = 1.0
    """Norm of a factor's effect at gate 1."""
    threshold: float = 0.5
    """Magnitude at which a factor's gate opens."""
    sharpness: float = 8.0
    """Steepness of the gates: how far they are from linear."""
    interactions: int = 16
    """Planted pairs of factors whose joint effect is not the sum of their own."""
    interaction: float = 0.5
    """Norm of a pair's joint effect when both gates are 1."""
    context_size: int = 16
    """Independent samples in a sequence for slice terms: nothing attends in a world."""
    block_rows: int = 16_384
    """Samples in a block."""
    seed: int = 0
    """Directions, ranks, pairs and effects. Samples follow the seed of the data, not this one."""

    def __post_init__(self) -> None:
        check(self)

    @cached_property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(f"factor {i}" for i in range(self.factors))

    @cached_property
    def level(self) -> Int[Tensor, " factors"]:
        """Depth of each factor in the forest; 0 for roots, with children or without."""
        sizes = torch.tensor([*level_sizes(self), self.factors - sum(level_sizes(self))])
        return torch.repeat_interleave(torch.tensor([*range(self.depth + 1), 0]), sizes)

    @cached_property
    def parents(self) -> Int[Tensor, " factors"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Index of each factor's parent; -1 for roots."""
        above = torch.full((self.factors,), -1)
        start = 0
        for size in level_sizes(self)[:-1]:
            children = torch.arange(size * self.branching)
            above[start + size + children] = start + children // self.branching
            start += size
        return above

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
        order = torch.randperm(len(having), generator=self._stream("exclusive"))
        chosen = having[order[: round(self.exclusive * len(having))]]
        return torch.zeros(self.factors, dtype=torch.bool).index_fill(0, chosen, True)

    @cached_property
    def given_parent(self) -> Float[Tensor, " factors"]:
        """P(factor | its parent); 1 for roots."""
        siblings = torch.tensor(sibling_probabilities(self), dtype=torch.float64)
        children = (self.parents >= 0).nonzero().squeeze(1)
        return torch.ones(self.factors, dtype=torch.float64).index_copy(
            0, children, siblings.repeat(len(children) // self.branching)
        )

    @cached_property
    def probabilities(self) -> Float[Tensor, " factors"]:
        """Marginal probability of each factor, exact: P(child) = P(parent) P(child | parent)."""
        p = torch.ones(self.factors, dtype=torch.float64)
        tops = (self.parents < 0).nonzero().squeeze(1)
        ranks = torch.randperm(len(tops), generator=self._stream("ranks"))
        p[tops] = (ranks + 1).double() ** -self.zipf
        for level in range(1, self.depth + 1):
            here = (self.level == level).nonzero().squeeze(1)
            p[here] = p[self.parents[here]] * self.given_parent[here]
        return p * (self.l0 / p.sum())

    @cached_property
    def directions(self) -> Float[Tensor, "factors d_in"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Unit vectors, random: with more factors than dimensions they overlap (superposition)."""
        return self._units("directions", self.factors)

    @cached_property
    def offset(self) -> Float[Tensor, " d_in"]:
        """The constant in all activations."""
        return self.bias * self._units("bias", 1)[0]

    @cached_property
    def effects(self) -> Float[Tensor, "factors d_in"]:
        """What each factor adds downstream at gate 1; zero for those without effect."""
        silent = self._order("effective")[round(self.effective * self.factors) :]
        return (self.effect * self._units("effects", self.factors)).index_fill(0, silent, 0.0)

    @cached_property
    def pairs(self) -> Int[Tensor, "pairs 2"]:
        """Factors with a planted interaction: both have an effect, and no factor is in two pairs."""
        chosen = self._order("effective")[: 2 * self.interactions]
        return chosen.view(2, self.interactions).T.contiguous()

    @cached_property
    def pair_effects(self) -> Float[Tensor, "pairs d_in"]:
        """What each pair adds downstream, besides, when both gates are 1."""
        return self.interaction * self._units("pair-effects", self.interactions)

    def gates(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        """How far the gate of each factor is open: 0 below the threshold, linear above."""
        readout = (acts - self.offset.to(acts)) @ self.directions.to(acts).T
        return softplus(readout - self.threshold, beta=self.sharpness)

    def downstream(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold d_in"]:
        """The layers after: the activations themselves, the factors' effects, and the pairs'."""
        gates = self.gates(acts)
        joint = gates[..., self.pairs[:, 0]] * gates[..., self.pairs[:, 1]]
        return acts + gates @ self.effects.to(acts) + joint @ self.pair_effects.to(acts)

    def sample(self, count: int, *, seed: int, name: str = "sample") -> Sample:
        """`count` samples of stream `name`, with their factors. Allocates count x factors."""
        x, firings = self._draw(count, seeding.stream(seed, name))
        z = torch.zeros(count, self.factors)
        return Sample(x, z.index_put((firings.rows, firings.factors), firings.magnitudes))

    def truth(self) -> Truth:
        return self

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        x, firings = self._draw(count, seeding.stream(seed, f"labelled/{split}"))
        return Labelled(x, firings.rows, firings.factors, firings.magnitudes, self.factors)

    def block(self, index: int, *, split: Split, seed: int) -> Block:
        x, _ = self._draw(self.block_rows, seeding.stream(seed, block_stream(split, index)))
        documents = torch.arange(index * self.block_rows, (index + 1) * self.block_rows)
        return Block(Batch(x, torch.full_like(documents, -1), documents, torch.zeros_like(documents)))

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        x, _ = self._draw(count * self.context_size, seeding.stream(seed, f"contexts/{split}"))
        acts = x.view(count, self.context_size, self.d_in)
        mask = torch.ones(count, self.context_size, dtype=torch.bool)
        return Contexts(acts, mask, self.downstream(acts), self.downstream)

    def available(self, split: Split) -> float:
        return math.inf

    def metadata(self) -> Mapping[str, str | int | bool]:
        return {
            "model_name": "world",
            "hook_name": "blocks.0.hook_resid_post",
            "hook_layer": 0,
            "context_size": 1,
            "prepend_bos": False,
            "world": fingerprint(self),
        }

    def sample_text(self, count: int) -> list[str]:
        return []

    def _stream(self, name: str) -> torch.Generator:
        return seeding.stream(self.seed, f"world/{name}")

    def _units(self, name: str, count: int) -> Float[Tensor, "count d_in"]:
        vectors = torch.randn(count, self.d_in, generator=self._stream(name))
        return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)

    def _order(self, name: str) -> Int[Tensor, " factors"]:
        return torch.randperm(self.factors, generator=self._stream(name))

    def _draw(self, count: int, rng: torch.Generator) -> tuple[Float[Tensor, "count d_in"], Firings]:
        tops = self._tops[0].shape[0]
        rows = max(1, CHUNK_ENTRIES // tops)
        x = torch.randn(count, self.d_in, generator=rng).mul_(self.noise).add_(self.offset)
        parts = []
        for start in range(0, count, rows):
            part = self._fire(min(rows, count - start), rng)
            x[start : start + rows] += weighted_sums(part, self.directions, min(rows, count - start))
            parts.append(part._replace(rows=part.rows + start))
        return x, Firings(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _fire(self, count: int, rng: torch.Generator) -> Firings:
        """Which factors are active in `count` rows, and how strongly: roots first, then level by level."""
        tops, bounds, loadings = self._tops
        field = torch.randn(count, len(tops), generator=rng)
        if self.correlation > 0:
            common = torch.randn(count, self.correlation_rank, generator=rng)
            own, shared = math.sqrt(1 - self.correlation), math.sqrt(self.correlation)
            field.addmm_(common, loadings.T, beta=own, alpha=shared)
        rows, top = (field > bounds).nonzero(as_tuple=True)
        found = [(rows, tops[top])]
        for _ in range(self.depth):
            found.append(self._descend(*found[-1], rng))
        rows, factors = (torch.cat(column) for column in zip(*found, strict=True))
        order = rows.argsort(stable=True)
        return Firings(rows[order], factors[order], self._magnitudes(len(order), rng))

    def _descend(self, rows: Tensor, factors: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The active children of active factors."""
        firsts, low, high, exclusive = self._children
        having = firsts[factors] >= 0
        rows, factors = rows[having], factors[having]
        children = firsts[factors].unsqueeze(1) + torch.arange(self.branching)
        draw = torch.rand(len(rows), self.branching, generator=rng)
        # Siblings that exclude one another share a draw, and each owns an interval of it.
        draw = torch.where(exclusive[factors].unsqueeze(1), draw[:, :1], draw)
        parent, child = ((low[children] <= draw) & (draw < high[children])).nonzero(as_tuple=True)
        return rows[parent], children[parent, child]

    def _magnitudes(self, count: int, rng: torch.Generator) -> Float[Tensor, " count"]:
        if self.magnitudes == "uniform":
            half_width = self.spread * math.sqrt(3)
            return torch.rand(count, generator=rng).mul_(2 * half_width).add_(1 - half_width)
        variance = math.log1p(self.spread**2)  # of the logarithm
        return torch.randn(count, generator=rng).mul_(math.sqrt(variance)).sub_(variance / 2).exp_()

    @cached_property
    def _tops(self) -> tuple[Int[Tensor, " tops"], Float[Tensor, " tops"], Float[Tensor, "tops rank"]]:
        """The roots, the copula's value above which each fires, and the unit loadings they share."""
        tops = (self.parents < 0).nonzero().squeeze(1)
        loadings = torch.randn(len(tops), self.correlation_rank, generator=self._stream("loadings"))
        loadings = loadings / torch.linalg.vector_norm(loadings, dim=1, keepdim=True)
        return tops, -torch.special.ndtri(self.probabilities[tops]).float(), loadings

    @cached_property
    def _children(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First child of each factor, the interval of the draw in which a factor fires, and who is exclusive."""
        sizes = torch.tensor(sibling_probabilities(self), dtype=torch.float64)
        before = sizes.cumsum(0) - sizes
        low = torch.zeros(self.factors, dtype=torch.float64)
        children = (self.parents >= 0).nonzero().squeeze(1)
        low[children] = before.repeat(len(children) // self.branching) * self.exclusive_parents[self.parents[children]]
        return self.first_children, low.float(), (low + self.given_parent).float(), self.exclusive_parents


def block_stream(split: Split, index: int) -> str:
    """Name of the random stream that block `index` of a split is drawn from."""
    return f"samples/{split}/{index}"


def weighted_sums(
    firings: Firings, directions: Float[Tensor, "factors d_in"], count: int
) -> Float[Tensor, "count d_in"]:
    """sum_i z_i d_i for each of `count` rows, without the rows x factors matrix."""
    counts = torch.bincount(firings.rows, minlength=count)
    return embedding_bag(
        firings.factors, directions, counts.cumsum(0) - counts, per_sample_weights=firings.magnitudes, mode="sum"
    )


def level_sizes(world: World) -> list[int]:
    """Factors of the forest on each level, from the roots down."""
    return [world.roots * world.branching**level for level in range(world.depth + 1)]


def sibling_probabilities(world: World) -> list[float]:
    """P(child | parent) of the children of one parent."""
    low, high = world.child_given_parent
    steps = max(1, world.branching - 1)
    return [low + (high - low) * (i / steps if world.branching > 1 else 0.5) for i in range(world.branching)]


def check(world: World) -> None:
    """Raise ValueError, saying what to change, for a world that cannot be."""
    counts = {name: getattr(world, name) for name in ("factors", "d_in", "roots", "branching", "correlation_rank")}
    counts |= {name: getattr(world, name) for name in ("context_size", "block_rows")}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if world.depth < 0 or sum(level_sizes(world)) > world.factors:
        raise ValueError(
            f"a forest of {world.roots} roots, branching {world.branching} and depth {world.depth} has "
            f"{sum(level_sizes(world))} factors, more than {world.factors}; "
            "raise factors, or lower roots, branching or depth"
        )
    check_probabilities(world)
    check_shapes(world)


def check_probabilities(world: World) -> None:
    low, high = world.child_given_parent
    mass = sum(sibling_probabilities(world))
    if not 0 < low <= high < 1:
        raise ValueError(f"child_given_parent is {low, high}; both must lie inside (0, 1), the smaller first")
    if world.exclusive > 0 and mass > 1 + 1e-9:
        raise ValueError(
            f"{world.branching} exclusive siblings would have probability {mass:.2f} together; "
            f"lower child_given_parent to a mean of at most {1 / world.branching:.2f}, or set exclusive to 0"
        )
    if world.l0 <= 0:
        raise ValueError(f"l0 is {world.l0}; it must be positive")
    likeliest = float(world.probabilities.max())
    if likeliest > LIKELIEST:
        raise ValueError(
            f"l0 = {world.l0} needs a root of probability {likeliest:.2f}, above {LIKELIEST}; "
            f"lower l0 to {world.l0 * LIKELIEST / likeliest:.1f} or less, add factors, or lower zipf"
        )


def check_shapes(world: World) -> None:
    shares = {name: getattr(world, name) for name in ("exclusive", "effective", "correlation")}
    for name, value in shares.items():
        if not 0 <= value <= 1 or (name == "correlation" and value == 1):
            raise ValueError(f"{name} is {value}; it must be a share of 1{', and less' * (name == 'correlation')}")
    for name in ("spread", "noise", "bias", "effect", "interaction", "interactions"):
        if getattr(world, name) < 0:
            raise ValueError(f"{name} is {getattr(world, name)}; it must not be negative")
    if world.magnitudes == "uniform" and world.spread * math.sqrt(3) >= 1:
        raise ValueError(f"uniform magnitudes of spread {world.spread} reach 0; use less than 0.577, or lognormal")
    if world.sharpness <= 0:
        raise ValueError(f"sharpness is {world.sharpness}; it must be positive")
    if 2 * world.interactions > round(world.effective * world.factors):
        raise ValueError(
            f"{world.interactions} pairs need {2 * world.interactions} factors with an effect, and there are "
            f"{round(world.effective * world.factors)}; lower interactions or raise effective"
        )
