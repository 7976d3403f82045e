"""Linear bases as dictionaries, untrained: independent components, neurons, a random basis. Each axis in both signs.

    latents 2i and 2i + 1:   z = select(+- a_i . (x - mean)),   x_hat = mean + sum_i +- z b_i,   a_i . b_j = [i = j]

Controls next to principal components: an SAE that finds no more than these has not made use of its width. FastICA was
near SAEs on probing (ICA Lens, arXiv 2606.11722); neurons are the axes of the activations themselves (2601.22594).
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import PositiveInt
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.weights import Acts
from unbraid.system import notices

Axes = Float[Tensor, "axis d_in"]
SINGULAR = 1e-10
"""Share of the largest variance below which there is none."""


@dataclass(frozen=True)
class IndependentComponents(Initialisation):
    """The axes along which activations are least Gaussian (FastICA, Hyvarinen 1999), most variance first."""

    steps: PositiveInt = 400
    """Most iterations; a warning says when they were not enough."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        from sklearn.decomposition import FastICA  # half a second to import, for this initialisation alone
        from sklearn.exceptions import ConvergenceWarning

        check_width(dictionary, "ICA", rank(sample))
        seed = int(torch.randint(2**31 - 1, (), generator=rng))
        fit = FastICA(rank(sample), whiten="unit-variance", max_iter=self.steps, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                fit.fit(sample.double().numpy())
            except ConvergenceWarning:
                warnings.simplefilter("ignore", ConvergenceWarning)
                fit.fit(sample.double().numpy())
                notices.log.warning("ICA had not converged after %d steps: give it more (steps)", self.steps)
        writers, readers = torch.from_numpy(fit.mixing_).T, torch.from_numpy(fit.components_)
        # Components have unit variance: the norm of what one writes is the deviation that it explains.
        order = torch.linalg.vector_norm(writers, dim=1).argsort(descending=True, stable=True)
        set_axes(dictionary, writers[order].to(sample), readers[order].to(sample), sample)


@dataclass(frozen=True)
class Neurons(Initialisation):
    """The axes of the raw activations, largest variance first: of a hidden layer its neurons, of a residual stream its
    coordinates."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        check_width(dictionary, "the neuron basis", dictionary.d_in)
        raw = sample if origin is None else origin.normaliser.unwhitened(sample)
        axes = torch.eye(dictionary.d_in)[raw.var(0).argsort(descending=True, stable=True)].to(sample)
        writers = axes if origin is None else origin.normaliser.atoms(axes)
        set_axes(dictionary, writers, torch.linalg.inv(writers.double()).T.to(sample), sample)


@dataclass(frozen=True)
class RandomBasis(Initialisation):
    """A rotation drawn at random: what neurons, components or any orthogonal axes score as axes alone."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        check_width(dictionary, "a basis", dictionary.d_in)
        drawn = torch.randn(dictionary.d_in, dictionary.d_in, generator=rng, dtype=torch.float64)
        axes = torch.linalg.qr(drawn).Q.T.to(sample)
        set_axes(dictionary, axes, axes, sample)


def rank(sample: Acts) -> int:
    """Return the number of directions in which activations vary."""
    centred = (sample - sample.mean(0)).double()
    variances = torch.linalg.eigvalsh(centred.T @ centred)
    return int((variances > SINGULAR * variances[-1]).sum())


def check_width(dictionary: Dictionary, what: str, axes: int) -> None:
    """Raise ValueError when there are fewer signed axes than latents."""
    if dictionary.d_sae > 2 * axes:
        raise ValueError(
            f"{what} has only {2 * axes} signed directions where activations vary in {axes} of {dictionary.d_in} "
            f"dimensions; got {dictionary.d_sae} latents: set --dictionary.d-sae {2 * axes}"
        )


@torch.no_grad()
def set_axes(dictionary: Dictionary, writers: Axes, readers: Axes, sample: Acts) -> None:
    """Set both signs of every axis, its reader scaled as its atom is; b_dec the mean of the sample."""
    norms = torch.linalg.vector_norm(writers, dim=1, keepdim=True)
    both = lambda axes: torch.stack([axes, -axes], 1).flatten(0, 1)[: dictionary.d_sae]
    dictionary.W_dec.copy_(both(writers / norms))
    dictionary.W_enc.copy_(both(readers * norms).T)
    dictionary.b_dec.copy_(sample.mean(0))
