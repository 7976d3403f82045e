"""Directions to interchange factors along, as DAS learns them (Geiger et al. 2023), in closed form. Not a method.

    r_i = argmin_(|r| = 1)  E | (m_i(s) - m_i(b)) d_i - r r' (x_s - x_b) |^2        over pairs of rows b, s
        = the leading eigenvector of  d_i c_i' + c_i d_i' - Cov(x),     c_i = Cov(x, m_i)

d_i is factor i's direction (a difference of means where it has none), m_i its magnitude. DAS trains one orthogonal
direction so that swapping x's part along it between two inputs changes the model's output as swapping the factor would;
here the output is the activation itself. Supervised: next to `truth` and `probes` it is a ceiling of dictionaries that
read along what they write. Latent i fires as often as its factor does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.from_truth import FromTruth, ProbeFit, check_origin, fill, mean_magnitudes
from unbraid.dictionary.initialisation import Origin
from unbraid.dictionary.weights import Acts
from unbraid.metrics.linear_probes import Probes, difference_of_means
from unbraid.sources.truth import Labelled, Truth


@dataclass(frozen=True)
class InterchangeDirections(FromTruth):
    """The direction along which swapping a part swaps each factor best, read by itself. A factor that never, or always,
    is active in the labelled rows gets a random atom and never fires."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        origin = check_origin(dictionary, origin)
        truth = origin.source.truth()
        labelled = truth.labelled(self.rows, split="train")
        directions, magnitudes = written(labelled, truth)
        axes = interchange_axes(labelled, directions, magnitudes)
        guesses = torch.nn.functional.normalize(torch.randn(axes.shape, generator=rng), dim=1)
        axes = torch.where(axes.isnan().any(1, keepdim=True), guesses, axes)
        bias = -rate_thresholds(labelled, axes)
        fill(dictionary, axes, mean_magnitudes(labelled), ProbeFit(labelled, Probes(axes, bias)), origin)


def written(labelled: Labelled, truth: Truth) -> tuple[Float[Tensor, "factors d_in"], Float[Tensor, " active"]]:
    """Return what each factor writes at magnitude 1, NaN where that is not known, and the magnitudes of active ones."""
    if truth.directions is not None:
        return truth.directions.double(), labelled.magnitudes.double()
    return difference_of_means(labelled, truth.parents).double(), torch.ones(len(labelled.rows), dtype=torch.float64)


def interchange_axes(
    labelled: Labelled, directions: Float[Tensor, "factors d_in"], magnitudes: Float[Tensor, " active"]
) -> Float[Tensor, "factors d_in"]:
    """Return r_i of every factor, turned so that it reads more where the factor is active; NaN where there is none."""
    from scipy.sparse import csr_array  # studies import this module, and few of them count

    x = labelled.x.double() - labelled.x.double().mean(0)
    covariance = x.T @ x / len(x)
    active = csr_array(
        (magnitudes.numpy(), (labelled.factors.numpy(), labelled.rows.numpy())), (labelled.count, len(x))
    )
    read = torch.from_numpy(active @ x.numpy()) / len(x)
    counts = torch.bincount(labelled.factors, minlength=labelled.count)
    found = torch.full_like(directions, torch.nan)
    for factor in ((counts > 0) & (counts < len(x)) & directions.isfinite().all(1)).nonzero().squeeze(1).tolist():
        crossed = torch.outer(directions[factor], read[factor])
        axis = torch.linalg.eigh(crossed + crossed.T - covariance).eigenvectors[:, -1]
        found[factor] = axis if axis @ read[factor] >= 0 else -axis
    return found.to(labelled.x.dtype)


def rate_thresholds(labelled: Labelled, axes: Float[Tensor, "factors d_in"]) -> Float[Tensor, " factors"]:
    """Return for every axis the value that as many rows exceed as its factor is active in."""
    read = (labelled.x @ axes.T).sort(0, descending=True).values
    counts: Int[Tensor, " factors"] = torch.bincount(labelled.factors, minlength=labelled.count)
    return read.gather(0, counts.clamp(max=len(read) - 1).unsqueeze(0)).squeeze(0)
