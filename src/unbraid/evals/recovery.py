"""Recovery of known factors: is each factor an atom, and does its latent fire exactly when the factor is active?

    mcc = max over one-to-one matchings m of mean |cos(atom_i, direction_m(i))|   (Hungarian, min(d_sae, factors) pairs)

Where factors have directions, latents are matched to them by |cosine|; where they have none, by F1, and what needs
cosines is left out (params "matching"). Detection is averaged over the factors that occur in the sample; one without a
latent, or whose latent never fires, scores 0. kind=chance: an untrained dictionary of the same shape and L0, scored
the same way. After SynthSAEBench (Chanin 2026), whose own F1 (`f1_latents`) takes each latent for a detector of its
nearest factor instead, and averages over latents, dead ones included.

One latent cannot detect a circle or a sphere, which has no mean: such factors are left out of all that matches one to
one (mcc, precision, recall, f1), and scored by the union of the latents whose atoms lie in their subspace.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import Baseline, baseline_of, labelled_rows, observe
from unbraid.evals.shared.reconstruction import reconstruction
from unbraid.metrics.alignment import Subspaces, alignment, one_direction, share_in_subspace
from unbraid.metrics.detection import Detection, detection, f1, f1_pairs
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.matching import Pairs, best_atom_pairs
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.truth import Truth, levels
from unbraid.system.sharing import shared

VERSION = 3
DEFINITIONS = {
    "mcc": "mean |cosine| of atoms and the factors matched to them one to one; kind=chance: untrained, same shape and "
    "L0, here and below",
    "precision": "share of a matched latent's firings in which its factor is active, mean over factors; at best 1",
    "recall": "share of a factor's activations in which its matched latent fires, mean over factors; at best 1",
    "f1": "harmonic mean of precision and recall, factor by factor, then averaged over factors; at best 1, which codes "
    "that fire exactly where factors are active reach",
    "f1_latents": "F1 of every latent as a detector of its nearest factor, averaged over latents, dead ones as 0 "
    "(SynthSAEBench's); falls as width passes the number of factors; at best 1",
    "f1_by_level": "f1 of the factors at one depth of their forest, 0 for roots",
    "precision_by_level": "precision of the factors at one depth of their forest",
    "recall_by_level": "recall of the factors at one depth of their forest",
    "f1_by_frequency": "f1 of the factors active in so large a share of rows",
    "precision_by_frequency": "precision of the factors active in so large a share of rows",
    "recall_by_frequency": "recall of the factors active in so large a share of rows",
    "manifold_precision": "share of the rows in which a latent of a manifold fires (its atom has 0.9 of its length in "
    "the subspace) that have the manifold active, mean over manifolds; 0 without such latents; at best 1",
    "manifold_recall": "share of a manifold's activations in which any of its latents fires, mean over manifolds; at "
    "best 1",
    "manifold_f1": "harmonic mean of these two, manifold by manifold, then averaged; at best 1",
    "manifold_latents": "latents in the subspace of a manifold, mean over manifolds: 3 cover a circle, 4 a sphere",
    "labelled_l0": "mean number of non-zero latents at the tokens whose factors are known, where those are a part of "
    "all (the last tokens of words): match dictionaries in this, and not in l0, for scores against factors",
    "labelled_fvu": "fraction of variance unexplained over the same tokens",
    "uniqueness": "distinct factors nearest to any atom, over min(latents, factors)",
    "recovered": "share of factors with some atom at |cosine| above 0.9",
}
NEITHER = {"manifold_latents", "labelled_l0"}
"""Metrics of which neither direction is better."""
LOWER = {"labelled_fvu"}
"""Metrics of which less is better."""
CLOSE = 0.9
"""|cos| above which a factor counts as recovered."""
CHUNK_ENTRIES = 2**24
"""Largest number of cosines held at once: 64 MB."""

Named = tuple[str, float, dict[str, float | str]]


def recovery(run: Run) -> list[Score]:
    """Score a run on a source with known factors."""
    return recovery_scores(run.dictionary(), run.source.truth())


@torch.no_grad()
def recovery_scores(dictionary: Dictionary, truth: Truth) -> list[Score]:
    """Score a dictionary of raw activations."""
    observed = observe(dictionary, truth)
    atoms = dictionary.W_dec.cpu()
    pairs = pairs_of(atoms, observed, truth)
    named = [
        *panel(atoms, pairs, observed, truth),
        *parts(pairs, observed, truth),
        *of_rows(dictionary, observed, truth),
    ]
    measured = scores(named, "measured")
    return [*measured, *by_chance(baseline_of(observed, truth))]


@shared
def by_chance(baseline: Baseline) -> list[Score]:
    """Score an untrained dictionary."""
    atoms, observed, truth = baseline.dictionary.W_dec, baseline.observe(), baseline.truth
    return scores(panel(atoms, pairs_of(atoms, observed, truth), observed, truth), "chance")


def pairs_of(atoms: Float[Tensor, "d_sae d_in"], observed: LatentsAndFactors, truth: Truth) -> Pairs:
    """Match latents to factors one to one: by |cosine|, or by F1 where factors have no directions."""
    return f1_pairs(observed) if truth.directions is None else matched(atoms, truth.directions.to(atoms), truth)


def scores(named: Iterable[Named], kind: ScoreKind) -> list[Score]:
    """Return the scores of these names, values and params."""
    better = lambda metric: "neither" if metric in NEITHER else "lower" if metric in LOWER else "higher"
    return [
        Score(metric=metric, value=value, better=better(metric), params=params, kind=kind)
        for metric, value, params in named
    ]


def matched(atoms: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "factors d_in"], truth: Truth) -> Pairs:
    """Match atoms one to one with those factors that are one direction."""
    alone = one_direction(len(directions), truth.subspaces).nonzero().squeeze(1)
    latents, columns = best_atom_pairs(atoms, directions[alone])
    return latents, alone[columns]


def panel(
    atoms: Float[Tensor, "d_sae d_in"], pairs: Pairs, observed: LatentsAndFactors, truth: Truth
) -> Iterator[Named]:
    """Yield the scores over all factors."""
    alone = one_direction(len(truth.parents), truth.subspaces)
    if truth.directions is None:
        matching: dict[str, float | str] = {"matching": "f1"}
        closest = torch.from_numpy(np.asarray(f1(observed).argmax(axis=1))).long()
    else:
        matching = {"matching": "cosine"}
        directions = truth.directions.to(atoms)
        closest, reached = nearest(atoms, directions, truth.subspaces)
        yield "mcc", mean_cosine(atoms, directions, pairs), {}
        yield "uniqueness", closest.unique().numel() / min(len(atoms), len(directions)), {}
        yield "recovered", float((reached > CLOSE).double().mean()), {"above": CLOSE}
    yield from detected(by_factor(observed, pairs), (observed.factor_counts > 0) & alone, "", matching)
    each = detection(observed, torch.arange(len(closest)), closest)
    yield "f1_latents", float(each.f1[alone[closest]].mean()), matching
    if truth.subspaces:
        yield from of_manifolds(atoms, observed, truth)


def of_manifolds(atoms: Float[Tensor, "d_sae d_in"], observed: LatentsAndFactors, truth: Truth) -> Iterator[Named]:
    """Yield the scores of the factors that are circles or spheres, over those that occur."""
    latents, factors = observed.latents.tocsc(), observed.factors.tocsc()
    found, sizes = [], []
    for factor, basis in truth.subspaces.items():
        present = np.diff(factors[:, [factor]].tocsr().indptr) > 0
        if not present.any():
            continue
        own = share_in_subspace(atoms, basis) > CLOSE
        fires = np.diff(latents[:, np.flatnonzero(own.numpy())].tocsr().indptr) > 0
        sizes.append(float(own.sum()))
        found.append([float(part.sum()) for part in (present, fires, present & fires)])
    scores = Detection(*torch.tensor(found, dtype=torch.float64).view(-1, 3).T)
    for name in ("precision", "recall", "f1"):
        yield f"manifold_{name}", float(getattr(scores, name).mean()), {}
    yield "manifold_latents", float(torch.tensor(sizes).mean()), {}


def parts(pairs: Pairs, observed: LatentsAndFactors, truth: Truth) -> Iterator[Named]:
    """Yield detection by level of the forest and by frequency."""
    found, level = by_factor(observed, pairs), levels(truth.parents)
    alone = one_direction(len(level), truth.subspaces)
    for depth in level.unique().tolist():
        yield from detected(
            found, (found.factor_counts > 0) & (level == depth) & alone, "_by_level", {"level": float(depth)}
        )
    for band, members in bands(found.factor_counts / max(1, observed.rows)).items():
        yield from detected(found, members & alone, "_by_frequency", {"band": band})


def of_rows(dictionary: Dictionary, observed: LatentsAndFactors, truth: Truth) -> Iterator[Named]:
    """Yield sparsity and fidelity on the rows that are scored, where a source has others too."""
    if truth.of_all_rows:
        return
    x = labelled_rows(truth).x
    found = {score.metric: score.value for score in reconstruction(dictionary, x, observed.latents)}
    yield "labelled_l0", found["l0"], {}
    yield "labelled_fvu", found["fvu"], {}


def nearest(
    atoms: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "factors d_in"], subspaces: Subspaces
) -> tuple[Int[Tensor, " d_sae"], Float[Tensor, " factors"]]:
    """Return the factor nearest to each atom, and the largest alignment of any atom with each factor."""
    rows = max(1, CHUNK_ENTRIES // len(directions))
    closest, reached = [], torch.zeros(len(directions), dtype=atoms.dtype)
    for part in atoms.split(rows):
        similarity = alignment(part, directions, subspaces)
        closest.append(similarity.argmax(1))
        reached = torch.maximum(reached, similarity.amax(0))
    return torch.cat(closest), reached


def mean_cosine(atoms: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "factors d_in"], pairs: Pairs) -> float:
    """Return the mean |cos| of matched pairs."""
    latents, factors = pairs
    return float(torch.cosine_similarity(atoms[latents].double(), directions[factors].double()).abs().mean())


def by_factor(observed: LatentsAndFactors, pairs: Pairs) -> Detection:
    """Count the detections of every factor by its matched latent; 0 for factors without one."""
    latents, factors = pairs
    matched = detection(observed, latents, factors)
    fired, both = (
        torch.zeros_like(observed.factor_counts).index_copy(0, factors, c)
        for c in (matched.latent_counts, matched.joint_counts)
    )
    return Detection(observed.factor_counts, fired, both)


def detected(
    found: Detection, members: Bool[Tensor, " factors"], suffix: str, params: dict[str, float | str]
) -> Iterator[Named]:
    """Yield precision, recall and F1, averaged over the member factors; NaN when there are none."""
    for name in ("precision", "recall", "f1"):
        yield name + suffix, float(getattr(found, name)[members].mean()), params


def bands(frequency: Float[Tensor, " factors"]) -> dict[str, Bool[Tensor, " factors"]]:
    """Group factors by decade of their frequency, rarest first, without those never active."""
    decade = frequency.log10().floor().clamp(max=-1)  # always active counts as the decade below 1
    found = decade[frequency > 0].unique().int().tolist()
    return {f"1e{d} to 1e{d + 1}": decade == d for d in found}
