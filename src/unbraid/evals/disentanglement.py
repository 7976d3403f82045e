"""Disentanglement against ground truth: does each latent inform about one factor, and one latent about each factor?

    bits(i, f) = I(bins of latent i; factor f active),   N(i, f) = bits(i, f) / H(f)

Everything is counted on held-out rows, over *live* latents (active in more than 1e-4 of them: InfoMEC's filter, on the
interquartile range, would drop every sparse latent) and *varying* factors (active in more than 1e-4 of them and
inactive in as many). Bins are "inactive" and four quantiles of the active values; pairs that a G-test takes for
independent share 0 bits. DCI, explicitness and InfoE come from sparse linear readouts of at most 32 factors.

Each metric is scored three times: kind=measured; kind=chance, for an untrained dictionary of the same width and L0; and
kind=ceiling, for the code whose latents are the factors. The ceiling may be below 1: in a forest the true code's
latents do inform about other factors, a child's about its parent. There, mig, sap, modularity, infom and infoc prefer
an absorbed code to the true one, and exceed the ceiling; the dci scores do not, since a readout needs no child besides
the parent's latent.
"""

from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import ROWS, Baseline, baseline_of, factor_matrix, observe
from unbraid.metrics.correlation import correlations
from unbraid.metrics.dci_mig import concentration, dci, gap, modularity, modularity_of_all
from unbraid.metrics.information import binary_entropy, mutual_information
from unbraid.metrics.irs import independent, robustness
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.sparse_counts import indicator
from unbraid.metrics.sparse_readout import FACTORS, FEWEST, read_out
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.truth import Truth
from unbraid.system.sharing import shared

VERSION = 2
RARE = 1e-4
"""Least share of rows in which a latent must be active (and a factor both active and inactive) to be counted."""
_READ = (
    f"read out of the code by L1 logistic regression (at most {FACTORS} factors, evenly spaced by frequency, each "
    f"active and inactive in at least {FEWEST} rows of either half)"
)
_MEANINGS = {
    "dci_disentanglement": "1 - entropy of a live latent's importances over factors, to base factors, weighted by "
    f"importance; that is the latent's |weight| in a factor {_READ}; NaN for one factor",
    "dci_completeness": "1 - entropy of a factor's importances over live latents, to base latents; saturates in wide "
    "dictionaries, see dci_latents_per_factor; NaN for one latent",
    "dci_informativeness": f"F1 on held-out rows of a factor {_READ}, mean over factors",
    "dci_latents_per_factor": "effective number of latents a factor is read from, 2^entropy of importances, mean",
    "dci_factors_per_latent": "effective number of factors a latent is read for, 2^entropy of importances, weighted",
    "mig": "bits about a factor of its most informative latent less those of the second, over the factor's "
    "entropy, mean over varying factors; 0 when each has two equal latents",
    "sap": "the same gap in squared correlations of latents with factors",
    "modularity": "1 - squared bits about a latent's other factors, over (factors - 1) times those about its first, "
    "mean over informative latents (disentanglement_lib: over all, see modularity_of_all); tends to 1 with many "
    "factors; NaN for one",
    "modularity_of_all": "the same as disentanglement_lib has it: mean over all latents, where one that is dead or "
    "informs about no factor counts as 0",
    "explicitness": f"area under the ROC curve on held-out rows of a factor {_READ}, mean",
    "infom": "bits/H about a latent's first factor over the sum about all, mean over informative latents, scaled "
    "so that equal shares give 0; NaN for one factor",
    "infoc": "bits/H of a factor's first latent over the sum of all, mean over factors with an informative latent, "
    "scaled so that equal shares give 0; NaN for one live latent",
    "infoe": f"(H - cross-entropy) / H on held-out rows of a factor {_READ}, mean; below 0 where it misleads",
    "telling": "share of live latents that share bits with any factor",
    "told": "share of varying factors that any live latent shares bits with",
    "irs": "interventional robustness: 1 - how far a latent moves while a factor stands still; absent unless no factor "
    "depends on another; rewards rarity, so only its distance from chance counts",
}
_KINDS = "kind=chance: an untrained dictionary of the same width and L0; kind=ceiling: the factors as their own code"
DEFINITIONS = {metric: f"{meaning}; {_KINDS}" for metric, meaning in _MEANINGS.items()}
LOWER = {"dci_latents_per_factor", "dci_factors_per_latent"}


def disentanglement(run: Run) -> list[Score]:
    """Score a run on a source with known factors. Raises NoTruth when they are not known."""
    return disentanglement_scores(run.dictionary(), run.source.truth(), rows=ROWS)


def disentanglement_scores(dictionary: Dictionary, truth: Truth, *, rows: int) -> list[Score]:
    """Score a dictionary of raw activations."""
    observed = observe(dictionary, truth, rows)
    measured = scores(observed, "measured", crossed=crossed(truth, rows))
    return [*measured, *by_chance(baseline_of(observed, truth, rows)), *ceiling(truth, rows)]


@shared
def by_chance(baseline: Baseline) -> list[Score]:
    """Score an untrained dictionary."""
    return scores(baseline.observe(), "chance", crossed=crossed(baseline.truth, baseline.rows))


@shared
def ceiling(truth: Truth, rows: int) -> list[Score]:
    """Score the factors as their own code."""
    factors = factor_matrix(truth, rows)
    return scores(LatentsAndFactors(factors, factors), "ceiling", crossed=crossed(truth, rows))


@shared
def crossed(truth: Truth, rows: int) -> bool:
    """Return whether the factors are independent."""
    return independent(factor_matrix(truth, rows))


def scores(observed: LatentsAndFactors, kind: ScoreKind, *, crossed: bool) -> list[Score]:
    """Return every metric as a score."""
    return [
        Score(metric=metric, value=value, better="lower" if metric in LOWER else "higher", kind=kind)
        for metric, value in measure(observed, crossed=crossed).items()
    ]


def measure(observed: LatentsAndFactors, *, crossed: bool) -> dict[str, float]:
    """Compute every metric, by name. `crossed`: the factors are independent, as IRS requires."""
    latents, observed = len(observed.latent_counts), counted(observed)
    active = indicator(observed.factors)
    bits = mutual_information(observed.latents, active)
    entropies = binary_entropy(observed.factor_counts / observed.rows)
    shares = bits / entropies.to(bits)
    found = read_out(observed)
    parts = dci(found.importance)
    scores = {
        "dci_disentanglement": parts.disentanglement,
        "dci_completeness": parts.completeness,
        "dci_informativeness": float(found.f1.mean()),
        "dci_latents_per_factor": parts.latents_per_factor,
        "dci_factors_per_latent": parts.factors_per_latent,
        "mig": gap(shares),
        "sap": gap(correlations(observed.latents, active).square_()),
        "modularity": modularity(bits),
        "modularity_of_all": modularity_of_all(bits, latents),
        "explicitness": float(found.auc.mean()),
        "infom": concentration(shares),
        "infoc": concentration(shares.T),
        "infoe": float(found.information.mean()),
        "telling": share(bits.amax(1) if bits.shape[1] else bits.sum(1)),
        "told": share(bits.amax(0) if bits.shape[0] else bits.sum(0)),
    }
    return scores | ({"irs": robustness(observed.latents, observed.factors)} if crossed else {})


def counted(observed: LatentsAndFactors) -> LatentsAndFactors:
    """Keep only live latents and varying factors."""
    least = RARE * observed.rows
    live = kept(observed.latent_counts > least)
    varying = kept((observed.factor_counts > least) & (observed.rows - observed.factor_counts > least))
    return LatentsAndFactors(observed.latents[:, live.numpy()], observed.factors[:, varying.numpy()])


def kept(mask: Tensor) -> Int[Tensor, " kept"]:
    """The indices at which a mask is True."""
    return mask.nonzero().squeeze(1)


def share(values: Float[Tensor, " n"]) -> float:
    """The share of values above 0; NaN when there are no values."""
    return float((values > 0).double().mean())
