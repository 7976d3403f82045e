"""Splitting: over how many latents one factor is spread, and by how much that number grows with width.

    latents_per_factor = mean over factors of exp(entropy of w),   w_l proportional to the rows of the factor in which
    latent l fires, over the latents that represent it

An effective count: 1 for one latent, n for n equal parts of a factor and for n copies, whatever else the dictionary
holds. (A share, such as distinct factors over latents, falls with width alone.) The slope is least squares against
log2(d_sae) over runs that differ only in width and name, and over the factors that all of them represent. A circle or
sphere takes several latents by its nature, so such factors have a score of their own.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import Baseline, baseline_of, observe
from unbraid.metrics.alignment import one_direction
from unbraid.metrics.detection import represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.runs.run import Run
from unbraid.runs.widths import other_widths, width
from unbraid.system.sharing import shared

VERSION = 2
DEFINITIONS = {
    "latents_per_factor": "effective number (exp of the entropy of their firings) of latents that represent a "
    "factor, mean over the represented factors, circles and spheres left out; 1 for the truth, n for n parts or n "
    "copies; NaN when no latent represents any",
    "latents_per_manifold": "the same over the factors that are circles or spheres, which take at least 3 or 4 "
    "latents; only where there are such factors",
    "represented": "share of the active factors with a latent that represents them: fires for them with purity 0.5 or "
    "more; kind=chance: untrained, same shape and L0; 1 for the truth",
    "latents_per_factor_slope": "rise of latents_per_factor when the width doubles, over runs that differ in width "
    "alone and factors represented at every width; 0 for the truth; only where there are such runs",
}


def splitting(run: Run, others: Sequence[Run]) -> list[Score]:
    """Score a run on a source with known factors. `others`: runs of the same experiment at other widths."""
    truth = run.source.truth()
    alone = one_direction(len(truth.parents), truth.subspaces).numpy()
    observed = observe(run.dictionary(), truth)
    counts, chance = effective_counts(observed), untrained_counts(baseline_of(observed, truth))
    scores = [
        Score(metric="latents_per_factor", value=mean_found(counts[alone]), better="lower"),
        Score(metric="represented", value=represented(counts, observed), better="higher", kind="measured"),
        Score(metric="represented", value=represented(chance, observed), better="higher", kind="chance"),
    ]
    if truth.subspaces:
        scores.append(Score(metric="latents_per_manifold", value=mean_found(counts[~alone]), better="neither"))
    if others:
        by_width = {width(run): counts}
        by_width |= {width(other): effective_counts(observe(other.dictionary(), truth)) for other in others}
        flat = {latents: found[alone] for latents, found in by_width.items()}
        scores.append(Score(metric="latents_per_factor_slope", value=slope(flat), better="lower"))
    return scores


def peers(run: Run) -> list[Run]:
    """Return the sibling runs that differ only in width and name."""
    return other_widths(run)


def effective_counts(observed: LatentsAndFactors) -> Float[np.ndarray, " factors"]:
    """Return the effective number of latents that represent each factor; 0 where none does."""
    owner = represented_factor(observed)
    latents = np.flatnonzero(owner >= 0)
    factors = owner[latents]
    weights = np.asarray(observed.joint_counts[latents, factors])
    size = len(observed.factor_counts)
    total = np.bincount(factors, weights, size)
    share = weights / total[factors]
    entropy = np.bincount(factors, -share * np.log(share), size)
    return np.where(total > 0, np.exp(entropy), 0.0)


@shared
def untrained_counts(baseline: Baseline) -> Float[np.ndarray, " factors"]:
    """Return `effective_counts` of an untrained dictionary."""
    return effective_counts(baseline.observe())


def mean_found(counts: Float[np.ndarray, " factors"]) -> float:
    found = counts[counts > 0]
    return float(found.mean()) if len(found) else float("nan")


def represented(counts: Float[np.ndarray, " factors"], observed: LatentsAndFactors) -> float:
    active = observed.factor_counts.numpy() > 0
    return float(np.mean(counts[active] > 0)) if active.any() else float("nan")


def slope(by_width: dict[int, Float[np.ndarray, " factors"]]) -> float:
    """Return the rise per doubling of the width; NaN when no factor is represented at every width."""
    counts = np.stack(list(by_width.values()))
    everywhere = (counts > 0).all(0)
    if not everywhere.any():
        return float("nan")
    return float(np.polyfit(np.log2(list(by_width)), counts[:, everywhere].mean(1), 1)[0])
