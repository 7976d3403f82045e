"""Agreement across seeds: does another seed find the same latents? Needs no ground truth.

    pw_mcc = max over one-to-one matchings m of mean |cos(atom_i, other_m(i))|             (Paulo & Belrose, 2505.20254)
    udr    = 1/2 [mean_b max_a R_ab^2 / sum_a R_ab + mean_a max_b R_ab^2 / sum_b R_ab]   (Duan et al. 2020)

R is |Spearman's correlation| of latents on the same held-out rows, over latents active in more than 1e-4 of them, with
R < .05 taken for 0: thousands of latents would fill the sums with noise. A latent without a similar one scores 0. The
other dictionaries are of the same experiment at other seeds, at most 16. Both scores reward what is reproducible,
absorbed or not.
"""

from collections.abc import Sequence
from functools import lru_cache
from statistics import mean, median
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import ROWS, held_out_codes
from unbraid.metrics.correlation import correlations, ranks
from unbraid.metrics.matching import best_atom_pairs, unit
from unbraid.metrics.sparse_counts import active_rows, shape
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.runs.siblings import alike
from unbraid.sources.base import Source
from unbraid.system.sharing import shared

VERSION = 3
DEFINITIONS = {
    "pw_mcc": "mean |cosine| of atoms and those of another seed matched to them one to one, dead ones too, mean over "
    "other seeds; kind=chance: random atoms of the same shapes; at best 1",
    "udr": "how exclusively each live latent correlates with one of another seed's (|Spearman| of codes on the same "
    "held-out rows, below .05 as 0), median over other seeds; kind=chance: rows of one of the two shuffled; "
    "kind=ceiling: the dictionary with itself, 1 only if its latents are uncorrelated; NaN when no latent is live",
}
RARE = 1e-4
"""Least share of rows in which a latent must be active to be counted."""
WEAK = 0.05
"""|R| below which latents count as uncorrelated."""
MOST = 16
"""Largest number of seeds that a run is compared with: enough for the mean, and the cost of all pairs is quadratic."""
SEED = 0
"""Seed of the chance level, the same for every run."""


def peers(run: Run) -> list[Run]:
    """Return the finished runs of the same experiment at other seeds: the next MOST, cyclically."""
    seed = lambda other: other.experiment.seed
    found = sorted(alike(run, "seed"), key=seed)
    after = [other for other in found if seed(other) > seed(run)]
    return [*after, *(other for other in found if seed(other) <= seed(run))][:MOST]


def agreement(run: Run, seeds: Sequence[Run]) -> list[Score]:
    """Score a run against runs of the same experiment at other seeds. Raises NotApplicable when there is none."""
    others = [(other.experiment.seed, other.dictionary()) for other in seeds]
    if not others and run.experiment.draws_source:
        raise NotApplicable("agreement compares seeds on one source, and here each drew its own (draw_source)")
    if not others:
        raise NotApplicable("agreement compares seeds, and this experiment was run at one: add seeds to the study")
    own, source = run.dictionary(), run.source
    pairs = [(own, other) if run.experiment.seed < seed else (other, own) for seed, other in others]
    found = [of_pair(*pair, source) for pair in pairs]
    ours = ranks_of(own, source)
    chance = mean(chance_mcc(own.d_sae, other.d_sae, own.d_in) for _, other in others)
    scores: list[tuple[str, ScoreKind, float]] = [
        ("pw_mcc", "measured", mean(pair.pw_mcc for pair in found)),
        ("pw_mcc", "chance", chance),
        ("udr", "measured", median(pair.udr for pair in found)),
        ("udr", "chance", median(pair.shuffled for pair in found)),
        ("udr", "ceiling", udr(ours, ours)),
    ]
    return [Score(metric=name, value=value, better="higher", kind=kind) for name, kind, value in scores]


class PairScores(NamedTuple):
    """The scores of two dictionaries, the same whichever comes first but for the shuffle."""

    pw_mcc: float
    udr: float
    shuffled: float
    """UDR with the rows of the second shuffled."""


@shared
def of_pair(first: Dictionary, second: Dictionary, source: Source) -> PairScores:
    """Compare two dictionaries, once for both."""
    ours, theirs = ranks_of(first, source), ranks_of(second, source)
    order = torch.randperm(shape(ours)[0], generator=seeding.stream(SEED, "agreement/shuffle")).numpy()
    return PairScores(pw_mcc(first.W_dec, second.W_dec), udr(ours, theirs), udr(ours, theirs[order]))


@torch.no_grad()
def pw_mcc(atoms: Float[Tensor, "a d_in"], others: Float[Tensor, "b d_in"]) -> float:
    """Return the mean |cosine| of atoms matched one to one."""
    rows, columns = best_atom_pairs(atoms, others)
    return float((unit(atoms)[rows] * unit(others)[columns]).sum(1).abs().double().mean())


@lru_cache(maxsize=16)
def chance_mcc(a: int, b: int, d_in: int) -> float:
    """Return `pw_mcc` of random atoms."""
    drawn = [
        torch.randn(count, d_in, generator=seeding.stream(SEED, f"agreement/chance/{side}"))
        for side, count in enumerate((a, b))
    ]
    return pw_mcc(*drawn)


def udr(ours: csr_array, theirs: csr_array) -> float:
    """Return UDR from the ranks of live latents, computed once per dictionary as ranking is the slowest step."""
    strength = correlations(ours, theirs).abs_()
    strength[strength < WEAK] = 0.0
    if not strength.numel():
        return float("nan")
    return (exclusiveness(strength) + exclusiveness(strength.T)) / 2


def exclusiveness(strength: Float[Tensor, "a b"]) -> float:
    """Return the mean over rows of max^2 / sum; 0 for a row of zeros."""
    share = strength.amax(1).square() / strength.sum(1).clamp_min(WEAK)
    return float(share.double().mean())


@shared
def ranks_of(dictionary: Dictionary, source: Source) -> csr_array:
    """Return the ranks of the codes of a dictionary's live latents on held-out rows."""
    return live_ranks(held_out_codes(dictionary, source, ROWS))


def live_ranks(latents: csr_array) -> csr_array:
    """Return the ranks of the codes of live latents, without zeros."""
    rows = len(latents.indptr) - 1
    return ranks(latents[:, active_rows(latents) > RARE * rows])
