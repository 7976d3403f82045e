"""Finds the factor that each latent represents, and the parents it absorbs, where the factors are known."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.observe import observe
from unbraid.evals.shared.parents import Absorbers, Detectors, families
from unbraid.metrics.alignment import alignment
from unbraid.metrics.detection import FEWEST, best_factor, detection, represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.sparse_counts import indicator
from unbraid.sources.truth import Truth

LEAST_ABSORBED = 0.1
"""Share of a child latent's rows with the parent from which it is said to absorb it."""


@dataclass(frozen=True, eq=False)
class FactorMatches:
    """The factor of each latent: the one it represents, else the one it detects best; -1 for none."""

    factor: Int[np.ndarray, " d_sae"]
    represents: Bool[np.ndarray, " d_sae"]
    """True where it fires for the factor with purity 0.5 or more."""
    precision: Float[np.ndarray, " d_sae"]
    recall: Float[np.ndarray, " d_sae"]
    f1: Float[np.ndarray, " d_sae"]
    cosine: Float[np.ndarray, " d_sae"]
    """|cos| of the atom and the factor's direction or subspace; NaN where it has none."""
    absorbs: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    """By latent: the parents that it absorbs, and in what share of its rows with the parent and a child active."""


@torch.no_grad()
def factor_matches(dictionary: Dictionary, truth: Truth) -> FactorMatches:
    """Match the latents of a dictionary of raw activations with factors."""
    observed = observe(dictionary, truth)
    owner = represented_factor(observed)
    factor = np.where(owner >= 0, owner, best_factor(observed))
    known = np.flatnonzero(factor >= 0)
    found = detection(observed, torch.from_numpy(known), torch.from_numpy(factor[known]))
    columns = {}
    for name, values, empty in (
        ("precision", found.precision, 0.0), ("recall", found.recall, 0.0), ("f1", found.f1, 0.0),
        ("cosine", cosines_with(dictionary, truth, known, factor[known]), np.nan),
    ):  # fmt: skip
        columns[name] = np.full(len(factor), empty)
        columns[name][known] = values
    return FactorMatches(factor, owner >= 0, **columns, absorbs=absorbed_parents(dictionary, observed, truth))


def cosines_with(
    dictionary: Dictionary, truth: Truth, latents: Int[np.ndarray, " some"], factors: Int[np.ndarray, " some"]
) -> Float[np.ndarray, " some"]:
    """Return the alignment of each atom with its own factor; NaN without directions."""
    if truth.directions is None or not len(latents):
        return np.full(len(latents), np.nan)
    atoms = dictionary.W_dec.detach().float().cpu()[latents]
    found = np.empty(len(latents))
    for factor in np.unique(factors).tolist():
        own = np.flatnonzero(factors == factor)
        subspaces = {0: truth.subspaces[factor]} if factor in truth.subspaces else {}
        found[own] = alignment(atoms[own], truth.directions[[factor]].to(atoms), subspaces)[:, 0].numpy()
    return found


def absorbed_parents(
    dictionary: Dictionary, observed: LatentsAndFactors, truth: Truth
) -> dict[int, list[tuple[int, float]]]:
    """Return the parents that each latent absorbs: it speaks for them where their own latents are silent."""
    absorbers, detectors = Absorbers(dictionary, observed, truth), Detectors(observed)
    found: dict[int, list[tuple[int, float]]] = {}
    for family in families(observed.factors.tocsc(), truth.parents.numpy(), observed.rows):
        detector = detectors.of(family)
        if not detector.detects:
            continue
        there = absorbers.with_child(family, detector)
        if not len(there.child_latents):
            continue
        speaks = indicator(there.codes)
        fired, instead = (
            np.asarray(speaks.T @ rows.astype(float)) for rows in (np.ones(len(there.rows)), there.absorbed)
        )
        share = instead / np.maximum(fired, 1)
        for place in np.flatnonzero((fired >= FEWEST) & (share >= LEAST_ABSORBED)).tolist():
            found.setdefault(int(there.child_latents[place]), []).append((family.parent, float(share[place])))
    return found
