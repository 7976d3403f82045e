"""Finds where a parent's latents fall silent and those of its children speak instead: absorption, by family.

A parent's latents are found where it is active *without* any child, so that absorption cannot hide them: all that
detect it there, and those that greedily raise the F1 of a union by more than 0.03. Child latents are the others that
represent a factor below the parent, or the parent itself but fire twice as often with a child as without. They speak
for it where they supply at least 0.4 of it, or where factors have no directions, where any of them fires.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array

from unbraid.dictionary.dictionary import Dictionary
from unbraid.metrics.detection import FEWEST, represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.matching import cosines
from unbraid.sources.truth import Truth, ancestors

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


@dataclass(frozen=True)
class WithChild:
    """The rows in which a parent and a child of it are active."""

    rows: Int[np.ndarray, " rows"]
    silent: Bool[np.ndarray, " rows"]
    """True where no latent of the parent fires."""
    child_latents: Int[np.ndarray, " latents"]
    codes: csr_array
    """Of the child latents [rows, latents]."""
    instead: Bool[np.ndarray, " rows"]
    """True where child latents speak for the parent."""
    missing: Float[np.ndarray, " rows"] | None
    """The share of the parent that its latents leave out and child latents supply; None without directions."""

    @property
    def absorbed(self) -> Bool[np.ndarray, " rows"]:
        """True where child latents speak and the parent's are silent."""
        return self.silent & self.instead


class Absorbers:
    """Looks at parents where their children are active."""

    def __init__(self, dictionary: Dictionary, observed: LatentsAndFactors, truth: Truth):
        self.observed = observed
        self.magnitudes: csc_array = observed.factors.tocsc()
        self.atoms, self.directions = dictionary.W_dec.cpu(), truth.directions
        self.above = ancestors(truth.parents).numpy()
        self.represented_factor = represented_factor(observed)

    def with_child(self, family: Family, detector: Detector) -> WithChild:
        """Look at one parent."""
        rows = np.flatnonzero(family.with_child)
        child_latents = self.below(family.parent) | (
            (self.represented_factor == family.parent) & detector.prefers_child
        )
        child_latents = np.setdiff1d(np.flatnonzero(child_latents), detector.latents)
        codes = self.observed.latents[rows][:, child_latents]
        if self.directions is None:
            instead, missing = np.diff(codes.indptr) > 0, None
        else:
            magnitude = self.magnitude(family.parent)[rows]
            own = self.observed.latents[rows][:, detector.latents] @ self.cosines(detector.latents, family.parent)
            others = codes @ self.cosines(child_latents, family.parent)
            instead = others >= SUPPLIED * magnitude
            missing = np.clip(np.minimum(others, magnitude - own), 0, None) / magnitude
        return WithChild(rows, ~detector.fires[rows], child_latents, codes, instead, missing)

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
