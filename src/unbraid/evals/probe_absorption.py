"""Absorption as SAEBench scores it: a logistic probe of each parent represents the parent's direction.

    wanted = (x - b_dec) . p,   supplied by latents L = sum over l in L of z_l atom_l . p,   p the probe's unit weights
    full           = P(no main latent fires, and the latent that supplies most has cos >= 0.025 with p
                       and supplies >= 0.4 wanted)
    fraction 0.3.2 = (all - main) / all             all, main: supplied by all, and by main latents
                     0 where main >= wanted or all <= 0
    fraction 0.6.0 = min(top, wanted - main) / (min(top, wanted - main) + main)
                     top: supplied by the 3 others of cos >= 0.1 that supply most
                     0 where main >= wanted or top < 0.4 wanted; 1 where main <= 0

over the rows in which the parent is active and its probe says so; then the mean over parents. Main latents: k_sparse. A
parent with a probe of F1 0.6 or less is left out. The numbers that SAEBench (Karvonen et al. 2025, arXiv 2503.09532)
published are the first fraction; it computes the second since version 0.4.1. It takes x . p for wanted, so that what
b_dec supplies is missing.

Unlike the absorption without probes, this one misses absorption where children are frequent: the latent of a child that
brings 0.03 of F1 is taken for a part of its parent, so that absorption shows as `probe_main_latents` instead. A probe
uses the children of its factor, so that the truth need not score 0 (kind=ceiling). And where main latents find little
of the parent, as without training, what others supply by accident counts as absorbed (kind=chance).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.from_truth import ROWS as TRAIN_ROWS
from unbraid.dictionary.from_truth import scaled_probes
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import ROWS, Baseline, baseline_of, factor_matrix, labelled_rows, observe
from unbraid.metrics.detection import FEWEST
from unbraid.metrics.k_sparse_probe import Labels, Rows, f1, k_sparse
from unbraid.metrics.linear_probes import Probes, difference_of_means
from unbraid.metrics.matching import unit
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.truth import Labelled, Truth, of_factors
from unbraid.system.sharing import shared

VERSION = 4
_KINDS = (
    "kind=chance: an untrained dictionary of the same shape and L0; ceiling: the true directions, or differences of "
    "means, with the true codes"
)
DEFINITIONS = {
    "probe_absorption_full": "share of a parent's rows in which its main latents do not fire and one other latent "
    "supplies at least 0.4 of its probe's projection, mean over probed parents; low where latents find no parent, so "
    f"read it together with probe_main_f1; NaN when no probed parent has a main latent; {_KINDS}",
    "probe_absorption_fraction": "share of a parent's projection that other latents supply, mean over its rows, then "
    "over probed parents, as SAEBench defined it in version 0.3.2 (published) or 0.6.0; NaN as above; kinds as above",
    "probe_main_latents": "main latents of a parent, mean over probed parents: 1 when none is split; kinds as above",
    "probe_main_f1": "F1 of the probe that reads a parent's main latents alone, on rows it was not fitted on, mean "
    "over probed parents; 0 for a parent without a main latent; kinds as above",
    "probed": "share of parents whose probe has F1 above 0.6; only these are scored, at most 32, evenly spaced by "
    "frequency",
}
PARENTS = 32
"""Largest number of parents probed. SAEBench has 26 letters."""
PROBE_F1 = 0.6
"""F1 above which a probe represents its factor. This and the constants below are SAEBench's."""
FULL_COSINE, FRACTION_COSINE = 0.025, 0.1
"""Least cosine with the probe of a latent that may have absorbed the parent."""
SUPPLIED = 0.4
"""Least share of the projection that absorbing latents must supply."""
ABSORBERS = 3
"""Largest number of latents that may each have absorbed a part (0.6.0)."""
L2 = 1.0
"""L2 penalty of the probes; that of the informed dictionaries."""


@dataclass(frozen=True, eq=False)
class Parent:
    """A factor with children, and its probe."""

    probe: Float[Tensor, " d_in"]
    """The probe's weights, of unit norm."""
    train: Bool[np.ndarray, " train"]
    held: Bool[np.ndarray, " held"]
    """True for the rows in which the parent is active."""
    found: Int[np.ndarray, " found"]
    """Held-out rows in which the parent is active and the probe detects it."""


@dataclass(frozen=True, eq=False)
class Probed:
    """The probes and the ceiling, which all runs of a source share."""

    held: Labelled
    parents: list[Parent]
    """The parents with a good probe."""
    share: float
    """Share of the parents tried that have a good probe."""
    ceiling: list[Score]


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Codes of the labelled rows, with the decoder."""

    train: csr_array
    held: csr_array
    atoms: Float[Tensor, "d_sae d_in"]
    bias: Float[Tensor, " d_in"]


@dataclass(frozen=True)
class ProbedParentScores:
    """The scores of one parent; NaN without main latents."""

    full: float
    published: float
    revised: float
    mains: int
    main_f1: float


def probe_absorption(run: Run) -> list[Score]:
    """Score a run on a source with known factors. Raises NotApplicable when no factor has children."""
    return probe_absorption_scores(run.dictionary(), run.source)


@torch.no_grad()
def probe_absorption_scores(dictionary: Dictionary, source: Source) -> list[Score]:
    """Score a dictionary of raw activations."""
    known, truth = probed(source), source.truth()
    measured = scores(seen(dictionary, truth), known.held, known.parents, "measured")
    return [
        *measured,
        *by_chance(baseline_of(observe(dictionary, truth, ROWS), truth, ROWS), source),
        *known.ceiling,
        Score(metric="probed", value=known.share, better="neither"),
    ]


@shared
def by_chance(baseline: Baseline, source: Source) -> list[Score]:
    """Score an untrained dictionary."""
    known = probed(source)
    return scores(seen(baseline.dictionary, baseline.truth), known.held, known.parents, "chance")


def scores(coded: CodedRows, held: Labelled, parents: list[Parent], kind: ScoreKind) -> list[Score]:
    """Average the scores of single parents."""
    found = [absorbed(coded, held, parent) for parent in parents]
    present = [one for one in found if one.mains]
    mean = lambda values: float(np.mean(values)) if values else float("nan")
    return [
        Score(
            metric="probe_absorption_full", value=mean([one.full for one in present]), better="lower",
            kind=kind,
        ),
        Score(
            metric="probe_absorption_fraction", value=mean([one.published for one in present]), better="lower",
            kind=kind, params={"definition": "0.3.2"},
        ),
        Score(
            metric="probe_absorption_fraction", value=mean([one.revised for one in present]), better="lower",
            kind=kind, params={"definition": "0.6.0"},
        ),
        Score(
            metric="probe_main_latents", value=mean([one.mains for one in found]), better="lower",
            kind=kind,
        ),
        Score(
            metric="probe_main_f1", value=mean([one.main_f1 for one in found]), better="higher", kind=kind
        ),
    ]  # fmt: skip


# ---- shared by all runs of a source


@lru_cache(maxsize=2)
def probed(source: Source) -> Probed:
    """Fit probes of parents, and score the truth."""
    truth = source.truth()
    train, held = labelled_rows(truth, TRAIN_ROWS, "train"), labelled_rows(truth, ROWS)
    tried = candidates(truth, train, held)
    if not len(tried):
        raise NotApplicable(f"no factor with children is active in {FEWEST} rows and inactive in {FEWEST}")
    probes = scaled_probes(of_factors(train, tried), L2)
    found = [probed_parent(factor, probes, place, train, held) for place, factor in enumerate(tried)]
    parents = [parent for parent in found if parent is not None]
    ceiling = scores(true_codes(truth, train), held, parents, "ceiling")
    return Probed(held, parents, len(parents) / len(tried), ceiling)


def candidates(truth: Truth, train: Labelled, held: Labelled) -> list[int]:
    """Choose at most 32 factors with children, active and inactive often enough, evenly spaced by frequency."""
    factors = truth.parents.unique()
    factors = factors[factors >= 0]
    enough = torch.ones(len(factors), dtype=torch.bool)
    for part in (train, held):
        count = torch.bincount(part.factors, minlength=part.count)[factors]
        enough &= (count >= FEWEST) & (len(part.x) - count >= FEWEST)
    count = torch.bincount(held.factors, minlength=held.count)
    frequent = factors[enough][count[factors[enough]].argsort(descending=True, stable=True)]
    places = torch.linspace(0, len(frequent) - 1, min(PARENTS, len(frequent))).round().long()
    return frequent[places].tolist()


def probed_parent(factor: int, probes: Probes, place: int, train: Labelled, held: Labelled) -> Parent | None:
    """Return a parent with its probe, which is at this place; None when the probe is poor."""
    weights, bias = probes.weights[place], probes.bias[place]
    says = (held.x @ weights + bias > 0).numpy()
    active = rows_with(factor, held)
    if f1(says, active) <= PROBE_F1:
        return None
    probe = weights / torch.linalg.vector_norm(weights)
    return Parent(probe, rows_with(factor, train), active, np.flatnonzero(says & active))


def rows_with(factor: int, labelled: Labelled) -> Rows:
    """True for the rows in which a factor is active."""
    rows = np.zeros(len(labelled.x), dtype=bool)
    rows[labelled.rows[labelled.factors == factor].numpy()] = True
    return rows


def true_codes(truth: Truth, train: Labelled) -> CodedRows:
    """Return the true directions and magnitudes; without directions, differences of means and their sizes."""
    z, others = factor_matrix(truth, TRAIN_ROWS, "train"), factor_matrix(truth, ROWS)
    if truth.directions is None:
        atoms = difference_of_means(train, truth.parents).nan_to_num(0.0)
        sizes = diags_array(torch.linalg.vector_norm(atoms, dim=1).double().numpy())
        z, others = (csr_array(part @ sizes) for part in (z, others))
        atoms = unit(atoms)
    else:
        atoms = truth.directions
    bias = train.x.double().mean(0) - torch.from_numpy(z.mean(axis=0)) @ atoms.double()
    return CodedRows(z, others, atoms, bias.to(atoms))


def seen(dictionary: Dictionary, truth: Truth) -> CodedRows:
    """Encode the labelled rows."""
    train, held = observe(dictionary, truth, TRAIN_ROWS, "train"), observe(dictionary, truth, ROWS)
    return CodedRows(train.latents, held.latents, dictionary.unit_atoms().cpu(), dictionary.b_dec.cpu())


# ---- one parent


def absorbed(coded: CodedRows, held: Labelled, parent: Parent) -> ProbedParentScores:
    """Score one parent."""
    mains, main_f1 = k_sparse(Labels(coded.train, parent.train), Labels(coded.held, parent.held))
    if not len(mains):
        return ProbedParentScores(float("nan"), float("nan"), float("nan"), 0, 0.0)
    wanted = ((held.x[parent.found] - coded.bias) @ parent.probe).double().numpy()
    supply = supplies(coded.held[parent.found], coded.atoms, parent.probe, mains)
    return ProbedParentScores(
        full=float(full(supply, wanted).mean()),
        published=float(published_fraction(supply, wanted).mean()),
        revised=float(revised_fraction(supply, wanted).mean()),
        mains=len(mains),
        main_f1=main_f1,
    )


@dataclass(frozen=True, eq=False)
class Supplied:
    """The part of a probe's projection that each active latent supplies, entry by entry, row after row."""

    rows: Int[np.ndarray, " nnz"]
    values: Float[np.ndarray, " nnz"]
    cosines: Float[np.ndarray, " nnz"]
    """The cosine of the entry's atom with the probe."""
    main: Bool[np.ndarray, " nnz"]
    count: int
    """Number of rows."""

    def total(self, entries: Bool[np.ndarray, " nnz"]) -> Float[np.ndarray, " row"]:
        """Sum the chosen entries of each row."""
        # bincount counts in integers when there is nothing to sum.
        return np.bincount(self.rows[entries], self.values[entries], self.count).astype(float)

    def largest(self, among: Bool[np.ndarray, " nnz"], count: int) -> Bool[np.ndarray, " nnz"]:
        """Choose the `count` entries of each row, among those given, that supply most."""
        places = np.flatnonzero(among)
        places = places[np.lexsort((-self.values[places], self.rows[places]))]
        rows = self.rows[places]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        chosen = np.zeros(len(self.rows), dtype=bool)
        chosen[places[rank < count]] = True
        return chosen


def supplies(
    latents: csr_array,
    atoms: Float[Tensor, "d_sae d_in"],
    probe: Float[Tensor, " d_in"],
    mains: Int[np.ndarray, " taken"],
) -> Supplied:
    """Return the part of a probe's projection that each active latent supplies."""
    projections, cosines = ((part @ probe).double().numpy() for part in (atoms, unit(atoms)))
    count = len(latents.indptr) - 1
    return Supplied(
        rows=np.repeat(np.arange(count), np.diff(latents.indptr)),
        values=latents.data * projections[latents.indices],
        cosines=cosines[latents.indices],
        main=np.isin(latents.indices, mains),
        count=count,
    )


def full(supply: Supplied, wanted: Float[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """True for the rows in which the parent is fully absorbed."""
    everything = np.ones_like(supply.main)
    enough = (supply.cosines >= FULL_COSINE) & (supply.values >= SUPPLIED * wanted[supply.rows])
    instead = np.zeros(supply.count, dtype=bool)
    instead[supply.rows[supply.largest(everything, 1) & enough]] = True
    silent = np.bincount(supply.rows[supply.main], minlength=supply.count) == 0
    return silent & instead & (wanted > 0)


def published_fraction(supply: Supplied, wanted: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Return the absorption fraction of each row, by version 0.3.2."""
    everything, main = supply.total(np.ones_like(supply.main)), supply.total(supply.main)
    none = (main >= wanted) | (everything <= 0)
    return np.where(none, 0.0, np.clip((everything - main) / np.where(none, 1.0, everything), 0, 1))


def revised_fraction(supply: Supplied, wanted: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Return the absorption fraction of each row, by version 0.6.0."""
    might = ~supply.main & (supply.cosines >= FRACTION_COSINE) & (supply.values > 0)
    top, main = supply.total(supply.largest(might, ABSORBERS)), supply.total(supply.main)
    none = (main >= wanted) | (top < SUPPLIED * wanted) | (wanted <= 0)
    instead = np.minimum(top, wanted - main)
    share = instead / np.where(none | (main <= 0), 1.0, instead + main)
    return np.where(none, 0.0, np.where(main <= 0, 1.0, share))
