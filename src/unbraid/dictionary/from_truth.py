"""Dictionaries made from the true factors: the ceiling of one atom a factor and a linear encoder. Not methods.

    logit_i = x . w_i + b_i,   code_i = size_i (logit_i - off_i) / (on_i - off_i) where logit_i > 0, else 0

w_i and b_i are a logistic probe of factor i, on_i and off_i its mean logits where the factor is active and where it is
not: a latent fires where the probe finds its factor more likely than not, and its code is the size the factor has.
Atoms are the true directions, or differences of means where factors need not be directions. In superposition the
probe reads far better than the transpose, or the linear reader of least variance (docs/log.md).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import PositiveFloat, PositiveInt
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.weights import Acts
from unbraid.metrics.linear_probes import Probes, difference_of_means, logistic, sums_where_active
from unbraid.sources.base import Source
from unbraid.sources.truth import Labelled

ROWS = 16_384
"""Labelled rows of the train split."""
CHUNK = 4096
"""Rows encoded at once."""


@dataclass(frozen=True)
class FromTruth(Initialisation):
    """An atom for each true factor, and a threshold that labelled rows set."""

    rows: PositiveInt = ROWS
    """Labelled rows of the train split."""
    sets_thresholds: ClassVar[bool] = True
    uses_truth: ClassVar[bool] = True


@dataclass(frozen=True)
class FromProbes(FromTruth):
    """An atom for each true factor, read by a logistic probe of it."""

    l2: PositiveFloat = 1.0
    """Weight of a probe's squared norm, against its loss summed over rows."""


@dataclass(frozen=True)
class TrueDirections(FromProbes):
    """The true directions, read by logistic probes: the ceiling `truth`."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        origin = check_origin(dictionary, origin)
        directions = origin.source.truth().directions
        if directions is None:
            raise ValueError("these factors are not directions, so none can be an atom; start from SupervisedProbes")
        fit = fit_probes(origin.source, self.rows, self.l2)
        fill(dictionary, directions, mean_magnitudes(fit.labelled), fit, origin)


@dataclass(frozen=True)
class SupervisedProbes(FromProbes):
    """Differences of means, a child's within its parent, read by logistic probes: the ceiling `probes`.

    A factor never, or always, active in the labelled rows gets a random atom and never fires.
    """

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        origin = check_origin(dictionary, origin)
        fit = fit_probes(origin.source, self.rows, self.l2)
        atoms = difference_of_means(fit.labelled, origin.source.truth().parents)
        sizes = torch.linalg.vector_norm(atoms, dim=1)
        guesses = torch.randn(atoms.shape, generator=rng)
        atoms = torch.where(sizes.isnan().unsqueeze(1), guesses, atoms)
        fill(dictionary, atoms, sizes, fit, origin)


class ProbeFit(NamedTuple):
    """Labelled rows, and probes fitted on them."""

    labelled: Labelled
    probes: Probes


@lru_cache(maxsize=2)
def fit_probes(source: Source, rows: int, l2: float) -> ProbeFit:
    """Fit a logistic probe of each factor on `rows` labelled rows of the train split. Cached, as seeds and methods
    share it."""
    labelled = source.truth().labelled(rows, split="train")
    return ProbeFit(labelled, scaled_probes(labelled, l2))


def scaled_probes(labelled: Labelled, l2: float) -> Probes:
    """Fit a logistic probe of each factor on rows scaled to unit mean square, so that `l2` has no units; the probes are
    for rows as they are."""
    scale = labelled.x.double().sub(labelled.x.double().mean(0)).square().mean().sqrt().to(labelled.x.dtype)
    unit = Labelled(labelled.x / scale, labelled.rows, labelled.factors, labelled.magnitudes, labelled.count)
    probes = logistic(unit, l2=l2)
    return Probes(probes.weights / scale, probes.bias)


def check_origin(dictionary: Dictionary, origin: Origin | None) -> Origin:
    """Return the origin. Raises ValueError when there is none, or the dictionary has not one latent with a threshold
    for each factor, and NoTruth where the source has no true factors."""
    if origin is None:
        raise ValueError("this initialisation needs the factors of the source: build it with an origin")
    count = len(origin.source.truth().names)
    if dictionary.d_sae != count:
        raise ValueError(
            f"there are {count} factors and {dictionary.d_sae} latents; this initialisation needs one each: "
            f"set --dictionary.d-sae {count}"
        )
    if not dictionary.activation.learns_threshold:
        raise ValueError(f"a probe fires above its own threshold, which takes JumpReLU, not {dictionary.activation}")
    return origin


def mean_magnitudes(labelled: Labelled) -> Float[Tensor, " factors"]:
    """Return the mean magnitude of each factor where it is active, NaN where it never is."""
    sums = torch.bincount(labelled.factors, labelled.magnitudes.double(), minlength=labelled.count)
    return (sums / torch.bincount(labelled.factors, minlength=labelled.count)).to(labelled.x.dtype)


@torch.no_grad()
def fill(
    dictionary: Dictionary,
    atoms: Float[Tensor, "d_sae d_in"],
    sizes: Float[Tensor, " d_sae"],
    fit: ProbeFit,
    origin: Origin,
) -> None:
    """Set all parameters, those for raw activations first. b_dec makes the mean error over the labelled rows vanish."""
    x, probes = fit.labelled.x, fit.probes
    off, on = mean_logits(fit)
    gain = sizes / (on - off)
    # A probe that leans to "active" where it is not would need a negative threshold: its codes are raised instead.
    threshold = (-off * gain).clamp_min(0)
    silent = ~torch.isfinite(gain)
    dictionary.W_dec.copy_(atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True))
    dictionary.W_enc.copy_((probes.weights * gain.unsqueeze(1)).masked_fill(silent.unsqueeze(1), 0).T)
    dictionary.b_enc.copy_((probes.bias * gain + threshold).masked_fill(silent, 0))
    dictionary.threshold.copy_(threshold.masked_fill(silent, 0))
    dictionary.b_dec.zero_()
    errors = torch.stack([(part - dictionary(part)).double().sum(0) for part in x.split(CHUNK)]).sum(0)
    rest = (errors / len(x)).to(x.dtype)
    dictionary.b_enc.add_(rest @ dictionary.W_enc)
    dictionary.b_dec.copy_(rest)
    dictionary.load_state_dict(origin.normaliser.unfold(dictionary).state_dict())


def mean_logits(fit: ProbeFit) -> tuple[Float[Tensor, " factors"], Float[Tensor, " factors"]]:
    """Return the mean logit of each probe where its factor is not active, and where it is. The second is larger, as the
    loss is convex and a probe beats a constant."""
    labelled, probes = fit
    sums, counts = (part.to(labelled.x.dtype) for part in sums_where_active(labelled))
    others, rest = labelled.x.sum(0) - sums, len(labelled.x) - counts
    logits = lambda total, rows: (total * probes.weights).sum(1) / rows + probes.bias
    return logits(others, rest), logits(sums, counts)
