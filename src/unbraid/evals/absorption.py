"""Absorption, without probes: does a parent's latent stop firing where a child's latent represents both?

    full       = P(no parent latent fires, and child latents supply >= 0.4 of the parent | parent and a child active)
    fractional = mean of min(supplied by child latents, missing from parent latents) / magnitude of the parent,
    supplied by latents L = sum over l in L of z_l cos(atom_l, d_parent),   missing = magnitude - supplied by its own

A parent's latents are found where it is active *without* any child, so that absorption cannot hide them: all that
detect it there, and those that greedily raise the F1 of a union by more than 0.03. Child latents are the others that
represent a factor below the parent, or the parent itself but fire twice as often with a child as without. After
SAEBench's absorption (Chanin et al. 2024, arXiv 2409.14507), with known factors in the place of probes. Factors
without directions have no projections: full absorption then only asks that some child latent fires (params "by"), and
there is no fractional score.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import observe
from unbraid.metrics.detection import FEWEST, represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.matching import cosines
from unbraid.runs.run import Run
from unbraid.sources.truth import Truth, ancestors

VERSION = 2
DEFINITIONS = {
    "absorption_full": "share of rows with a parent and a child in which no latent of the parent fires and child "
    "latents supply at least 0.4 of the parent (by=direction) or fire (by=association), mean over scorable parents; "
    "0 for the truth, NaN when no parent is scorable",
    "absorption_fractional": "share of the parent's magnitude that its latents leave out and child latents supply, "
    "mean over rows with a parent and a child, then over scorable parents; 0 for the truth, NaN as above",
    "parent_recall_given_child": "share of rows with a parent and a child in which a latent of the parent fires, mean "
    "over scorable parents; 1 for the truth; kind=chance: the same latents where the parent is inactive; NaN as above",
    "parent_recall_alone": "share of rows with a parent and no child in which a latent of the parent fires, mean over "
    "scorable parents; 1 for the truth; NaN as above",
    "scorable": "share of parents with latents that detect them when alone (F1 at least halfway from that of a latent "
    "that always fires to 1); only these are scored: a parent without a latent is missing, not absorbed; near 0 "
    "without training, 1 for the truth",
}
SUPPLIED = 0.4
"""Share of the parent that child latents must supply to have absorbed it. SAEBench's."""
GAIN = 0.03
"""Rise of F1 for which another latent joins a parent's. SAEBench's."""
CANDIDATES = 10
"""Largest number of candidates for a parent's latents. SAEBench's."""
DETECTED = 0.5
"""How far F1 must be from that of a latent that always fires (0) to that of the truth (1)."""
PREFERS = 2
"""How much more often a latent of the parent must fire with a child than without to be a child latent."""

Rows = Bool[np.ndarray, " rows"]


@dataclass(frozen=True)
class Family:
    """A parent, and the rows in which it is active with and without its children."""

    parent: int
    with_child: Rows
    alone: Rows


@dataclass(frozen=True)
class Detector:
    """A parent's own latents, and the rows in which any of them fires."""

    latents: Int[np.ndarray, " own"]
    fires: Rows
    detects: bool
    """True if they detect the parent where it is alone."""
    prefers_child: Bool[np.ndarray, " d_sae"]
    """Latents that fire twice as often where the parent is with a child as where it is alone."""


@dataclass(frozen=True)
class Absorbed:
    """The scores of one parent."""

    recall_given_child: float
    recall_alone: float
    false_alarms: float
    full: float
    fractional: float


def absorption(run: Run) -> list[Score]:
    """Score a run on a source with known factors. Raises NotApplicable when no factor has children."""
    return absorption_scores(run.dictionary(), run.source.truth())


@torch.no_grad()
def absorption_scores(dictionary: Dictionary, truth: Truth) -> list[Score]:
    """Score a dictionary of raw activations."""
    observed = observe(dictionary, truth)
    found = families(observed.factors.tocsc(), truth.parents.numpy(), observed.rows)
    if not found:
        raise NotApplicable(
            f"no factor is active in {FEWEST} rows with a child of its own and in {FEWEST} without: nothing to absorb"
        )
    detectors, scored = Detectors(observed), []
    absorbers = Absorbers(dictionary, observed, truth)
    for family in found:
        detector = detectors.of(family)
        if detector.detects:
            scored.append(absorbers.absorbed(family, detector))
    return scores(scored, len(found), by_direction=truth.directions is not None)


def scores(scored: list[Absorbed], parents: int, *, by_direction: bool) -> list[Score]:
    """Average the scores of single parents. `parents`: how many were tried."""
    mean = lambda values: float(np.mean(values)) if values else float("nan")
    full = Score(
        metric="absorption_full", value=mean([s.full for s in scored]), better="lower",
        params={"by": "direction" if by_direction else "association"},
    )  # fmt: skip
    fractional = Score(metric="absorption_fractional", value=mean([s.fractional for s in scored]), better="lower")
    return [
        full,
        *([fractional] if by_direction else []),
        Score(
            metric="parent_recall_given_child", value=mean([s.recall_given_child for s in scored]), better="higher",
            kind="measured",
        ),
        Score(
            metric="parent_recall_given_child", value=mean([s.false_alarms for s in scored]), better="higher",
            kind="chance",
        ),
        Score(metric="parent_recall_alone", value=mean([s.recall_alone for s in scored]), better="higher"),
        Score(metric="scorable", value=len(scored) / parents, better="higher"),
    ]  # fmt: skip


def families(factors: csc_array, parents: Int[np.ndarray, " factors"], rows: int) -> list[Family]:
    """Find every parent that is active in enough rows both with a child and alone."""
    found = []
    for parent in np.unique(parents[parents >= 0]).tolist():
        present, with_child = np.zeros((2, rows), dtype=bool)
        present[active(factors, parent)] = True
        for child in np.flatnonzero(parents == parent).tolist():
            with_child[active(factors, child)] = True
        with_child &= present
        alone = present & ~with_child
        if min(with_child.sum(), alone.sum()) >= FEWEST:
            found.append(Family(parent, with_child, alone))
    return found


def active(matrix: csc_array, column: int) -> Int[np.ndarray, " active"]:
    """The rows in which a column is not 0."""
    return matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]


class Detectors:
    """Finds the latents of each parent."""

    def __init__(self, observed: LatentsAndFactors):
        self.by_row: csr_array = observed.latents
        self.by_latent: csc_array = observed.latents.tocsc()
        self.latent_counts = observed.latent_counts.numpy()

    def of(self, family: Family) -> Detector:
        """Find the latents of one parent."""
        alone, with_child = self.firings(family.alone), self.firings(family.with_child)
        candidates = self.candidates(family, alone, with_child)
        chosen, best = self.union(family, candidates)
        always = self.f1(np.ones_like(family.alone), family)
        detects = lambda f1: f1 - always >= DETECTED * (1 - always)
        chosen |= {latent for latent, rows in candidates.items() if detects(self.f1(rows, family))}
        fires = np.any([candidates[latent] for latent in chosen] or [np.zeros_like(family.alone)], axis=0)
        prefers = (with_child > 0) & (with_child * family.alone.sum() >= PREFERS * alone * family.with_child.sum())
        return Detector(np.array(sorted(chosen), dtype=int), fires, detects(best), prefers)

    def union(self, family: Family, candidates: Mapping[int, Rows]) -> tuple[set[int], float]:
        """Greedily choose the latents whose union has the best F1, and return them with that F1."""
        chosen, fires, best = set(), np.zeros_like(family.alone), 0.0
        while len(chosen) < len(candidates):
            f1s = {latent: self.f1(fires | rows, family) for latent, rows in candidates.items() if latent not in chosen}
            latent = max(f1s, key=lambda one: f1s[one])
            if f1s[latent] <= best + GAIN:
                break
            chosen, fires, best = chosen | {latent}, fires | candidates[latent], f1s[latent]
        return chosen, best

    def candidates(
        self, family: Family, alone: Int[np.ndarray, " d_sae"], with_child: Int[np.ndarray, " d_sae"]
    ) -> dict[int, Rows]:
        """Return the latents with the best F1, and the rows in which they fire.

        `alone`, `with_child`: in how many rows each latent fires where the parent is alone or with a child.
        """
        f1 = 2 * alone / (self.latent_counts - with_child + family.alone.sum())
        found = {}
        for latent in np.argsort(-f1, kind="stable")[:CANDIDATES].tolist():
            if alone[latent] > 0:
                found[latent] = np.zeros_like(family.alone)
                found[latent][active(self.by_latent, latent)] = True
        return found

    def firings(self, rows: Rows) -> Int[np.ndarray, " d_sae"]:
        """Count in how many of these rows each latent fires."""
        return np.bincount(self.by_row[np.flatnonzero(rows)].indices, minlength=len(self.latent_counts))

    def f1(self, fires: Rows, family: Family) -> float:
        """The F1 of detecting the parent, over the rows in which none of its children is active."""
        fired = np.sum(fires & ~family.with_child)
        return float(2 * np.sum(fires & family.alone) / max(1, fired + family.alone.sum()))


class Absorbers:
    """Scores parents where their children are active."""

    def __init__(self, dictionary: Dictionary, observed: LatentsAndFactors, truth: Truth):
        self.observed = observed
        self.magnitudes: csc_array = observed.factors.tocsc()
        self.atoms, self.directions = dictionary.W_dec.cpu(), truth.directions
        self.above = ancestors(truth.parents).numpy()
        self.represented_factor = represented_factor(observed)

    def absorbed(self, family: Family, detector: Detector) -> Absorbed:
        """Score one parent."""
        rows = np.flatnonzero(family.with_child)
        child_latents = self.below(family.parent) | (
            (self.represented_factor == family.parent) & detector.prefers_child
        )
        child_latents = np.setdiff1d(np.flatnonzero(child_latents), detector.latents)
        silent = ~detector.fires[rows]
        absent = ~(family.with_child | family.alone)
        speaking = self.observed.latents[rows][:, child_latents]
        fractional = float("nan")
        if self.directions is None:
            instead = np.diff(speaking.indptr) > 0
        else:
            magnitude = self.magnitude(family.parent)[rows]
            own = self.observed.latents[rows][:, detector.latents] @ self.cosines(detector.latents, family.parent)
            others = speaking @ self.cosines(child_latents, family.parent)
            instead = others >= SUPPLIED * magnitude
            fractional = float(np.mean(np.clip(np.minimum(others, magnitude - own), 0, None) / magnitude))
        return Absorbed(
            recall_given_child=float(np.mean(~silent)),
            recall_alone=float(np.mean(detector.fires[family.alone])),
            false_alarms=float(np.mean(detector.fires[absent])) if absent.any() else float("nan"),
            full=float(np.mean(silent & instead)),
            fractional=fractional,
        )

    def below(self, parent: int) -> Bool[np.ndarray, " d_sae"]:
        """True for the latents that represent a factor below the parent."""
        return (self.represented_factor >= 0) & (self.above[:, self.represented_factor] == parent).any(0)

    def magnitude(self, factor: int) -> Float[np.ndarray, " rows"]:
        """The magnitudes of a factor in all rows."""
        dense = np.zeros(self.observed.rows)
        part = slice(self.magnitudes.indptr[factor], self.magnitudes.indptr[factor + 1])
        dense[self.magnitudes.indices[part]] = self.magnitudes.data[part]
        return dense

    def cosines(self, latents: Int[np.ndarray, " some"], factor: int) -> Float[np.ndarray, " some"]:
        """The cosines of these latents' atoms with a factor's direction."""
        assert self.directions is not None
        return cosines(self.atoms[latents], self.directions[[factor]])[:, 0].double().numpy()
