"""Absorption, without probes: does a parent's latent stop firing where a child's latent represents both?

    full       = P(no parent latent fires, and child latents supply >= 0.4 of the parent | parent and a child active)
    fractional = mean of min(supplied by child latents, missing from parent latents) / magnitude of the parent,
    supplied by latents L = sum over l in L of z_l cos(atom_l, d_parent),   missing = magnitude - supplied by its own

Parent and child latents are those of `unbraid.evals.shared.parents`. After SAEBench's absorption (Chanin et al. 2024,
arXiv 2409.14507), with known factors in the place of probes. Factors without directions have no projections: full
absorption then only asks that some child latent fires (params "by"), and there is no fractional score.
"""

from dataclasses import dataclass

import numpy as np
import torch

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import observe
from unbraid.evals.shared.parents import Absorbers, Detector, Detectors, Family, WithChild, families
from unbraid.metrics.detection import FEWEST
from unbraid.runs.run import Run
from unbraid.sources.truth import Truth

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
            scored.append(absorbed(family, detector, absorbers.with_child(family, detector)))
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


def absorbed(family: Family, detector: Detector, found: WithChild) -> Absorbed:
    """Score one parent."""
    absent = ~(family.with_child | family.alone)
    return Absorbed(
        recall_given_child=float(np.mean(~found.silent)),
        recall_alone=float(np.mean(detector.fires[family.alone])),
        false_alarms=float(np.mean(detector.fires[absent])) if absent.any() else float("nan"),
        full=float(np.mean(found.absorbed)),
        fractional=float("nan") if found.missing is None else float(np.mean(found.missing)),
    )
