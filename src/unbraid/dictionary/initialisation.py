"""Initialisations of a dictionary: random atoms, or directions found in the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import Settings
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.latent_shards import own_rows_of_normal
from unbraid.dictionary.normaliser import Normaliser
from unbraid.dictionary.weights import Acts
from unbraid.sources.base import Source

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) as work goes on; the command line shows a progress bar."""


def no_progress(done: int, total: int) -> None:
    pass


def not_kept(state: Mapping[str, Tensor]) -> None:
    pass


@dataclass(frozen=True)
class Kept:
    """The storage of an initialisation that takes minutes, so that a kill does not lose what it has reached.
    The default stores nothing."""

    read: Callable[[], dict[str, Tensor]] = dict
    """What an earlier attempt reached; empty when there was none."""
    write: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Called after each step with what the rest depends on; `state` must not be changed in place afterwards."""
    finish: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Called with what was found."""


NOT_KEPT = Kept()


@dataclass(frozen=True)
class Origin:
    """The source of a dictionary's activations and their normalisation, for initialisations that need them."""

    source: Source
    normaliser: Normaliser
    watch: ProgressCallback = no_progress
    """Called with the progress of an initialisation that takes a while."""
    kept: Kept = NOT_KEPT


Claim = Literal[1, 2]
"""The claim that a win supports. 1: objectives from the disentanglement literature. 2: MELBO and DCT, latents as knobs
with large, distinct, non-interacting effects downstream."""


class Initialisation(Settings, ABC):
    """A way to fill the parameters of a new dictionary: a frozen dataclass of settings."""

    claim: ClassVar[Claim] = 1
    """The claim that a win from this start supports: 2 for directions that MELBO or a DCT fitted."""
    uses_truth: ClassVar[bool] = False
    """Whether it reads the true factors, which makes it a ceiling."""
    sets_thresholds: ClassVar[bool] = False
    """Whether it fills thresholds and extra parameters too; the activation initialises them otherwise."""

    shards: ClassVar[bool] = False
    """Whether it can fill some of the latents alone, of a dictionary that processes hold together."""

    @abstractmethod
    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        """Fill the parameters. `sample`: normalised activations; atoms must come out with unit norm."""


@dataclass(frozen=True)
class RandomAtoms(Initialisation):
    """Random unit atoms, the encoder their transpose, b_dec the mean of the data."""

    shards: ClassVar[bool] = True

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        atoms = own_rows_of_normal(dictionary.d_sae, dictionary.d_in, rng, dictionary.shards)
        set_tied(dictionary, atoms, sample)


@dataclass(frozen=True)
class PrincipalComponents(Initialisation):
    """Principal directions and their negatives, most variance first: the linear control. At most 2 * d_in atoms."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if dictionary.d_sae > 2 * dictionary.d_in:
            raise ValueError(
                f"PCA has only {2 * dictionary.d_in} signed directions in {dictionary.d_in} dimensions; "
                f"got {dictionary.d_sae} latents: set --dictionary.d-sae {2 * dictionary.d_in}"
            )
        centred = sample - sample.mean(0)
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        components = vectors.flip(1).T
        set_tied(dictionary, torch.stack([components, -components], 1).flatten(0, 1)[: dictionary.d_sae], sample)


@torch.no_grad()
def set_tied(dictionary: Dictionary, atoms: Float[Tensor, "d_sae d_in"], sample: Acts) -> None:
    """Set unit atoms, the encoder their transpose, b_dec the mean of the sample."""
    dictionary.W_dec.copy_(atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True))
    dictionary.W_enc.copy_(dictionary.W_dec.T)
    dictionary.b_dec.copy_(sample.mean(0))
