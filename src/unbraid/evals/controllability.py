"""Controllability: set one latent, keep everything else fixed, and measure what changes downstream.

    x' = x + (level - z_i) atom_i,   level: R, the same for all runs of a source; size=own: the 95th percentile of z_i

Where each factor's readout downstream is known (World): modularity of what moves, and the share that is the latent's
own factor, the one it detects best. Everywhere: effects D_i = f(x + R atom_i) - f(x) - R atom_i, pooled over held-out
contexts, their overlap, rank and interactions in pairs, and their additivity, which means nothing without their size.
R is the radius at which random directions leave the linear regime.
kind=measured: living latents; chance: random directions, and for readouts an untrained dictionary of the same width and
L0; reference: principal directions; ceiling: true directions.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.effects.additivity import joint_effects, single_effects
from unbraid.effects.effect import pooled_effect
from unbraid.effects.independence import effect_rank, interactions, largest_cosines
from unbraid.effects.radius import calibrate_radius, random_units
from unbraid.effects.set_latent import Moves, modularity, moves, shares
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import ROWS, held_out_codes, observe
from unbraid.evals.shared.untrained import matching_k, untrained
from unbraid.metrics.detection import FEWEST, best_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.base import Contexts, Source
from unbraid.sources.behind import behind
from unbraid.sources.stream import held_out
from unbraid.sources.truth import Labelled, NoTruth
from unbraid.sources.world.world import World
from unbraid.system.sharing import shared

VERSION = 3
DEFINITIONS = {
    "modularity": "(largest share of what setting a latent moves - 1/F) / (1 - 1/F), F factors with a readout: 1 moves "
    "one alone; mean over latents that move any, all set to R, or with size=own to the 95th percentile of their codes",
    "isolation": "share of what setting a latent moves that is the factor it detects best, mean over latents whose "
    "factor has a readout",
    "hit": "share of these latents whose most moved factor is the one they detect best",
    "effect": "mean norm of effects over the root mean square of random directions' at the same R",
    "felt": "share of latents whose effect is above a hundredth of that; only these count in the scores below",
    "overlap": "mean largest cosine of an effect with another's or its nearest atom's; NaN when none is felt",
    "interaction": "|D_ij - D_i - D_j| / (|D_i| + |D_j|), mean over as many random pairs as latents; NaN below three",
    "additive_r2": "share of the joint effect of two to four of them, token by token in half of the contexts, that the "
    "sum of their single effects in the other half explains; atoms with hardly any effect may be additive too: see "
    "effect",
    "context_ceiling": "share of the joint effect that does not depend on the context: about the largest possible "
    "additive_r2",
    "atom_overlap": "mean largest cosine of these latents' atoms with their nearest",
    "effect_rank": "participation ratio of the effects of at most 64 latents: the dimensions they span",
    "radius": "R in raw units; by=nonlinearity: calibrated; by=spread: half the root mean square deviation of the "
    "activations, where the downstream layers have no radius at which they leave the linear regime",
}
SEED = 0
"""Seed of everything drawn, the same for every run."""
LATENTS = 64
"""Largest number of living latents set, and of reference directions."""
CONTEXTS = 8
SET_ROWS = 128
"""Number of held-out rows in which readouts are measured."""
NEGLIGIBLE = 1e-2
"""Share of a random direction's effect below which an effect is negligible."""
ROUNDING = 1e-4
"""Share of the push below which effects of random directions are rounding errors: the downstream layers do nothing."""


OTHERS = MappingProxyType({"directions": "principal"})
"""Params of the scores of principal directions."""


class Panel(NamedTuple):
    """Directions to push along, each with the atom nearest to it."""

    directions: Float[Tensor, "k d_in"]
    neighbours: Float[Tensor, "k d_in"]


class Levels(NamedTuple):
    """Living latents, their atoms, and a high value of their codes."""

    latents: Int[Tensor, " k"]
    atoms: Float[Tensor, "k d_in"]
    high: Float[Tensor, " k"]

    @property
    def signs(self) -> Float[Tensor, " k"]:
        """The signs of the codes."""
        return self.high.sign()


class PushSetup(NamedTuple):
    """Held-out contexts with their downstream map, and the radius of pushes."""

    contexts: Contexts
    radius: float
    by: str


def controllability(run: Run) -> list[Score]:
    """Score the controllability of a run's latents. Raises NotApplicable when the source has no downstream."""
    return controllability_scores(run.dictionary(), run.source)


@torch.no_grad()
def controllability_scores(dictionary: Dictionary, source: Source) -> list[Score]:
    """Score a dictionary of raw activations."""
    after = push_setup(source)
    if isinstance(world := behind(source), World):
        source = world  # of a cache of a world: its factors and their readouts are known
    observed = observe(dictionary, source) if isinstance(source, World) else None
    latents = held_out_codes(dictionary, source, ROWS) if observed is None else observed.latents
    living = alive(dictionary, latents)
    own = Panel(living.atoms * living.signs.unsqueeze(1), nearest(dictionary.unit_atoms().cpu(), living.latents))
    scores = [
        Score(metric="radius", value=after.radius, better="neither", params={"by": after.by}),
        *effect_scores("measured", own, after, usual_effect(source)),
        *reference_scores(source, dictionary.d_sae),
    ]
    if isinstance(source, World) and observed is not None:
        scores += readout_scores(dictionary, source, observed, living, after.radius)
    return scores


@lru_cache(maxsize=4)
def push_setup(source: Source) -> PushSetup:
    """Draw held-out contexts and calibrate the radius. Raises NotApplicable when the source has no downstream."""
    count = int(max(1, min(CONTEXTS, source.sequences("eval"))))  # a small text holds fewer
    try:
        contexts = source.unpadded_contexts(count, split="eval", seed=SEED)
    except ValueError as reason:
        raise NotApplicable(f"controllability needs the layers downstream of the activations: {reason}") from reason
    try:
        radius = calibrate_radius(contexts, rng=stream("radius"))
        return PushSetup(contexts, radius, "nonlinearity")
    except ValueError:  # no such radius: the downstream layers are linear, or do nothing
        kept = contexts.acts[contexts.mask].float()
        spread = (kept - kept.mean(0)).square().sum(1).mean().sqrt()
        return PushSetup(contexts, 0.5 * float(spread), "spread")


def stream(name: str) -> torch.Generator:
    """Return this eval's random stream of that name."""
    return seeding.stream(SEED, f"controllability/{name}")


def alive(dictionary: Dictionary, latents: csr_array) -> Levels:
    """Choose at most 64 latents that fire often enough to know their codes, in random order."""
    columns = latents.tocsc()
    counts = np.diff(columns.indptr)
    living = torch.from_numpy(np.flatnonzero(counts >= FEWEST))
    chosen = living[torch.randperm(len(living), generator=stream("latents"))[:LATENTS]]
    high = [upper(columns.data[columns.indptr[i] : columns.indptr[i + 1]]) for i in chosen.tolist()]
    return Levels(chosen, dictionary.unit_atoms().cpu()[chosen], torch.tensor(high, dtype=torch.float32))


def upper(values: np.ndarray) -> float:
    """The 95th percentile of |code|, with the sign of the codes, which may be negative."""
    return float(np.quantile(np.abs(values), 0.95) * np.sign(np.median(values)))


def nearest(atoms: Float[Tensor, "all d_in"], chosen: Int[Tensor, " k"]) -> Float[Tensor, "k d_in"]:
    """Return for each chosen atom the most similar other one. With a single atom, its negative is used."""
    if len(atoms) < 2:
        return -atoms[chosen]
    cosines = atoms[chosen] @ atoms.T
    cosines[torch.arange(len(chosen)), chosen] = -math.inf
    return atoms[cosines.argmax(1)]


@lru_cache(maxsize=4)
def usual_effect(source: Source) -> float:
    """Return the root mean square effect of random directions; 0 when it is a rounding error."""
    after = push_setup(source)
    pushes = after.radius * random_units(LATENTS, source.d_in, stream("usual"))
    effects = pooled_effect(after.contexts, pushes.to(after.contexts.acts.device))
    usual = float(effects.square().sum(1).mean().sqrt())
    return usual if usual > ROUNDING * after.radius else 0.0


@lru_cache(maxsize=8)
def references(source: Source, d_sae: int) -> dict[ScoreKind, Panel]:
    """Return panels of random directions (as many as latents), of principal ones, and of true ones where known."""
    x = held_out(source, ROWS).x.cpu().double()
    found: dict[ScoreKind, Float[Tensor, "k d_in"]] = {
        "chance": random_units(d_sae, source.d_in, stream("random")),
        "reference": torch.linalg.eigh(torch.cov(x.T))[1].flip(1).T.float().contiguous(),
    }
    chosen = {kind: torch.arange(min(LATENTS, len(all_))) for kind, all_ in found.items()}
    if (true := true_directions(source)) is not None:
        found["ceiling"], chosen["ceiling"] = true, some_factors(len(true))
    return {kind: Panel(all_[chosen[kind]], nearest(all_, chosen[kind])) for kind, all_ in found.items()}


def true_directions(source: Source) -> Float[Tensor, "factors d_in"] | None:
    """Return the true directions of the factors; None when the source does not know them."""
    try:
        return source.truth().directions
    except NoTruth:
        return None


def some_factors(count: int) -> Int[Tensor, " k"]:
    """Choose at most 64 factors at random."""
    return torch.randperm(count, generator=stream("factors"))[:LATENTS]


@lru_cache(maxsize=8)
def reference_scores(source: Source, d_sae: int) -> tuple[Score, ...]:
    """Return the scores that are the same for every dictionary of one width."""
    after, usual = push_setup(source), usual_effect(source)
    panels = references(source, d_sae)
    return tuple(score for kind, panel in panels.items() for score in effect_scores(kind, panel, after, usual))


def effect_scores(kind: ScoreKind, panel: Panel, after: PushSetup, usual: float) -> list[Score]:
    """Score the effects of a panel at the common radius. `usual`: the root mean square effect of random directions."""
    pushes, near = ((after.radius * part).to(after.contexts.acts.device) for part in panel)
    effects, early = single_effects(after.contexts, pushes)
    nearby = pooled_effect(after.contexts, near) if len(near) else near
    sizes = torch.linalg.vector_norm(effects, dim=1)
    felt = (sizes > NEGLIGIBLE * usual) & (usual > 0)
    added, pairs = joint_effects(after.contexts, pushes[felt], early[felt])
    together = interactions(pairs, effects[felt].roll(-1, 0), effects[felt]) if len(pairs) else pairs.new_empty(0)
    higher = {
        "effect": float(sizes.mean()) / usual if usual > 0 else math.nan,
        "felt": float(felt.double().mean()),
        "additive_r2": added.r2,
        "effect_rank": effect_rank(effects[felt]) if bool(felt.any()) else math.nan,
    }
    lower = {
        "overlap": float(largest_cosines(effects[felt], nearby[felt]).mean()),
        "interaction": float(together.mean()),
        "atom_overlap": float((panel.directions * panel.neighbours).sum(1)[felt.cpu()].mean()),
    }
    row = lambda metric, value, better: Score(
        metric=metric, value=value, better=better, kind=kind, params=OTHERS if kind == "reference" else {}
    )
    return [
        row("context_ceiling", added.ceiling, "neither"),
        *(row(metric, value, "higher") for metric, value in higher.items()),
        *(row(metric, value, "lower") for metric, value in lower.items()),
    ]


class Handles(NamedTuple):
    """The readouts that setting latents (or pushing along directions) moves, and the factor each should move or -1."""

    moved: Moves
    own: Int[Tensor, " k"]


def readout_scores(
    dictionary: Dictionary, world: World, observed: LatentsAndFactors, living: Levels, radius: float
) -> list[Score]:
    """Score which factors' readouts move when a latent is set, and whether it is the factor that it detects."""
    rows = world.labelled(SET_ROWS, split="eval", seed=SEED)
    readable = torch.linalg.vector_norm(world.effects, dim=1) > 0
    panels, factors = references(world, dictionary.d_sae), some_factors(world.factors)

    def push(atoms: Tensor, levels: Tensor | float, now: Tensor | float = 0.0) -> Moves:
        height, here = torch.zeros(len(atoms)) + levels, torch.zeros(len(rows.x), len(atoms)) + now
        return moves(lambda acts: world.readouts(acts)[..., readable], rows.x, atoms, here, height)

    def now(made: Dictionary, chosen: Levels) -> Tensor:
        return (made.encode(rows.x.to(made.W_dec.device)) * made.norms()).cpu()[:, chosen.latents]

    def handles(made: Dictionary, seen: LatentsAndFactors, chosen: Levels) -> Handles:
        moved = push(chosen.atoms, radius * chosen.signs, now(made, chosen))
        return Handles(moved, torch.from_numpy(best_factor(seen))[chosen.latents])

    unlearned = untrained_of_world(world, dictionary.d_sae, matching_k(observed.latents))
    seen_by_it = observe(unlearned, world)
    found: dict[ScoreKind, Handles] = {
        "measured": handles(dictionary, observed, living),
        "chance": handles(unlearned, seen_by_it, alive(unlearned, seen_by_it.latents)),
        "ceiling": Handles(push(world.directions[factors], radius, true_levels(world, rows)[:, factors]), factors),
    }
    random = panels["chance"].directions[: len(living.high)]
    return [
        *(modular(handle.moved, kind) for kind, handle in found.items()),
        modular(push(panels["reference"].directions, radius), "reference", OTHERS),
        modular(push(living.atoms, living.high, now(dictionary, living)), "measured", {"size": "own"}),
        modular(push(random, living.high.abs()), "chance", {"size": "own"}),
        *(score for kind, handle in found.items() for score in ownership(kind, handle, readable)),
    ]


@shared
def untrained_of_world(world: World, d_sae: int, k: int) -> Dictionary:
    """Return the untrained dictionary of this width and L0."""
    return untrained(d_sae, k, held_out(world, ROWS).x)


def true_levels(world: World, rows: Labelled) -> Float[Tensor, "row factors"]:
    """Return the level of each factor along its direction.

    A manifold's is unknown where it shows another of its points: it counts as 0, and the direction is added to it.
    """
    levels = rows.dense()
    levels[:, list(world.subspaces)] = 0
    return levels


def modular(moved: Moves, kind: ScoreKind, params: Mapping[str, str] = MappingProxyType({})) -> Score:
    """Return the modularity score, mean over those that move anything."""
    value = float(modularity(moved).nanmean())
    return Score(metric="modularity", value=value, better="higher", kind=kind, params=params)


def ownership(kind: ScoreKind, handles: Handles, readable: Bool[Tensor, " factors"]) -> list[Score]:
    """Return isolation and hit, over those that move something and whose factor has a readout.

    A latent without a factor scores 0.
    """
    counted = ((handles.own < 0) | readable[handles.own]) & (handles.moved.sum(1) > 0)
    share, own = shares(handles.moved[counted]), handles.own[counted]
    column = (readable.cumsum(0) - 1)[own]
    known = own >= 0
    most = share.argmax(1) if len(share) else own
    values = {
        "isolation": share.gather(1, column.unsqueeze(1)).squeeze(1) * known,
        "hit": ((most == column) & known).double(),
    }
    return [
        Score(metric=metric, value=float(value.mean()), better="higher", kind=kind) for metric, value in values.items()
    ]
