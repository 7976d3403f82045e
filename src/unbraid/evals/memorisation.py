"""Memorisation: latents that represent products of factors instead of factors.

    literals of latent l: f, then "and g" or "and not g", each the one that raises the F1 of the conjunction with l most
    l is a product when  F1(best conjunction) >= 0.5  and  F1(best conjunction) - F1(best single factor) >= 0.2

An infinitely wide sparse dictionary would give each state of the world a latent of its own. A child implies its parent,
so no conjunction holds a factor and another above or below it: the child alone is no product, nor is a parent that is
silent for its child (that is absorption). The order of a product is the number of literals that come within 0.05 of
its best F1; at most 8 are tried.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import Baseline, baseline_of, observe
from unbraid.metrics.detection import FEWEST
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.truth import Truth, ancestors
from unbraid.system.sharing import shared

VERSION = 1
DEFINITIONS = {
    "product_latents": "latents that a conjunction of two or more unrelated factors, or their absence, explains much "
    "better than any one factor does (F1 at least 0.5, and 0.2 above); 0 for the truth; kind=chance: untrained, same "
    "shape and L0, here and below",
    "product_share": "product latents over latents that fire in at least 10 rows; NaN when none does",
    "product_order": "mean number of factors in a product; NaN when there are no products",
}
EXPLAINED = 0.5
"""Least F1 at which a conjunction explains a latent."""
GAIN = 0.2
"""Least gain in F1 over the best single factor."""
SLACK = 0.05
"""Least F1 that further literals must add to count in the order."""
MOST = 8
"""Largest number of literals tried."""


def memorisation(run: Run) -> list[Score]:
    """Score a run on a source with known factors."""
    return memorisation_scores(run.dictionary(), run.source.truth())


@torch.no_grad()
def memorisation_scores(dictionary: Dictionary, truth: Truth) -> list[Score]:
    """Score a dictionary of raw activations."""
    observed = observe(dictionary, truth)
    measured = scores(observed, ancestors(truth.parents).numpy(), "measured")
    return [*measured, *by_chance(baseline_of(observed, truth))]


@shared
def by_chance(baseline: Baseline) -> tuple[Score, ...]:
    """Score an untrained dictionary."""
    return tuple(scores(baseline.observe(), ancestors(baseline.truth.parents).numpy(), "chance"))


def scores(observed: LatentsAndFactors, above: Int[np.ndarray, "height factors"], kind: ScoreKind) -> Iterator[Score]:
    """Yield the scores of one set of codes."""
    orders = product_orders(observed, above)
    products, live = orders[orders > 1], np.sum(orders > 0)
    mean = lambda part, whole: float(part / whole) if whole else float("nan")
    yield Score(metric="product_latents", value=float(len(products)), better="lower", kind=kind)
    yield Score(metric="product_share", value=mean(len(products), live), better="lower", kind=kind)
    yield Score(metric="product_order", value=mean(products.sum(), len(products)), better="neither", kind=kind)


def product_orders(observed: LatentsAndFactors, above: Int[np.ndarray, "height factors"]) -> Int[np.ndarray, " d_sae"]:
    """Return the number of literals that each latent represents: 1 for no product, 0 when it fires too rarely."""
    search = Search(observed, above)
    latents: csc_array = observed.latents.tocsc()
    orders = np.zeros(len(observed.latent_counts), dtype=int)
    for latent in np.flatnonzero(observed.latent_counts.numpy() >= FEWEST).tolist():
        f1s = np.array(list(search.f1s(latents.indices[latents.indptr[latent] : latents.indptr[latent + 1]])))
        is_product = f1s[-1] >= EXPLAINED and f1s[-1] - f1s[0] >= GAIN
        orders[latent] = 1 + np.argmax(f1s >= f1s[-1] - SLACK) if is_product else 1
    return orders


class Search:
    """Grows conjunctions of factors, one literal at a time."""

    def __init__(self, observed: LatentsAndFactors, above: Int[np.ndarray, "height factors"]):
        self.by_row: csr_array = observed.factors
        self.by_factor: csc_array = observed.factors.tocsc()
        self.factor_counts = observed.factor_counts.numpy()
        self.rows = observed.rows
        self.above = above

    def f1s(self, fired: Int[np.ndarray, " fired"]) -> Iterator[float]:
        """Yield the F1 of the best conjunction of 1, 2, … literals with the rows in which a latent fired.

        It rises, and ends when no further literal can make a product.
        """
        f1 = 2 * self.counts(fired) / (len(fired) + self.factor_counts)
        factor = int(np.argmax(f1))
        single = best = float(f1[factor])
        yield single
        fires = np.zeros(self.rows, dtype=bool)
        fires[fired] = True
        rows, free = self.active(factor), ~self.related(factor)
        for _ in range(MOST - 1):
            hits = np.sum(fires[rows])
            # The best that literals could still do is to leave the hits and nothing else.
            if 2 * hits / (len(fired) + hits) < max(EXPLAINED, single + GAIN):
                return
            negated, factor, f1 = self.next_literal(rows, fires, len(fired), free)
            if f1 <= best:
                return
            best = f1
            yield best
            narrow = np.setdiff1d if negated else np.intersect1d
            rows = narrow(rows, self.active(factor), assume_unique=True)
            free &= ~self.related(factor)

    def next_literal(
        self,
        rows: Int[np.ndarray, " some"],
        fires: Bool[np.ndarray, " rows"],
        fired: int,
        free: Bool[np.ndarray, " factors"],
    ) -> tuple[bool, int, float]:
        """Find the best next literal: True if it is negated, its factor, and the F1 of `rows` narrowed by it."""
        hit = rows[fires[rows]]
        with_, hits = self.counts(rows), self.counts(hit)
        f1 = np.stack([2 * hits / (fired + with_), 2 * (len(hit) - hits) / (fired + len(rows) - with_)]) * free
        negated, factor = np.unravel_index(int(np.argmax(f1)), f1.shape)
        return bool(negated), int(factor), float(f1[negated, factor])

    def counts(self, rows: Int[np.ndarray, " some"]) -> Float[np.ndarray, " factors"]:
        """Count the rows in which each factor is active."""
        return np.bincount(self.by_row[rows].indices, minlength=len(self.factor_counts)).astype(float)

    def active(self, factor: int) -> Int[np.ndarray, " active"]:
        """The rows in which a factor is active."""
        return self.by_factor.indices[self.by_factor.indptr[factor] : self.by_factor.indptr[factor + 1]]

    def related(self, factor: int) -> Bool[np.ndarray, " factors"]:
        """True for the factor, those above it and those below it."""
        found = (self.above == factor).any(0)
        found[[factor, *(f for f in self.above[:, factor] if f >= 0)]] = True
        return found
