"""Starting from a trained dictionary, with more latents: how width extension is trained, and its control.

A folder holds weights for raw activations; those for activations normalised as the run's are the inverse of folding
(`Normaliser.unfold`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from unbraid.config.settings import SomeText
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.weights import Acts
from unbraid.formats import saelens


@dataclass(frozen=True)
class Extension(Initialisation):
    """The latents of a trained dictionary, then random unit atoms with the encoder their transpose.

    As wide as it was, it only trains on: the control of width extension (Chanin et al. 2025, arXiv 2505.11756).
    """

    folder: SomeText
    """Where the trained dictionary is: a run, or any SAELens folder for the same activations."""
    sets_thresholds: ClassVar[bool] = True

    def start(self) -> Dictionary:
        """The trained dictionary, for raw activations."""
        return saelens.read(Path(self.folder))

    @torch.no_grad()
    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if origin is None:
            raise ValueError("extension needs to know how activations are normalised: build it with an origin")
        check(raw := self.start(), dictionary, self.folder)
        try:
            start = origin.normaliser.unfold(raw)
        except ValueError as error:
            raise ValueError(f"{self.folder} cannot be continued: {error}") from error
        known = start.d_sae
        guesses = torch.randn(dictionary.d_sae - known, dictionary.d_in, generator=rng)
        guesses = guesses / torch.linalg.vector_norm(guesses, dim=1, keepdim=True)
        dictionary.W_dec.copy_(torch.cat([start.W_dec, guesses]))
        dictionary.W_enc.copy_(torch.cat([start.W_enc.T, guesses]).T)
        dictionary.b_dec.copy_(start.b_dec)
        dictionary.b_enc.zero_()[:known].copy_(start.b_enc)
        if dictionary.activation.learns_threshold:
            dictionary.threshold.fill_(float(start.threshold.median()))[:known].copy_(start.threshold)


def check(start: Dictionary, dictionary: Dictionary, folder: str) -> None:
    """Raise ValueError when `dictionary` cannot continue `start`."""
    if dictionary.activation.extra_parameters:
        kind = type(dictionary.activation).__name__
        raise ValueError(f"{kind} is saved as the JumpReLU it is; continue {folder} with JumpReLU, not {kind}")
    if start.d_in != dictionary.d_in:
        raise ValueError(f"{folder} explains {start.d_in} dimensions; these activations have {dictionary.d_in}")
    if dictionary.d_sae < start.d_sae:
        raise ValueError(
            f"{folder} has {start.d_sae} latents, more than {dictionary.d_sae}: "
            f"set --dictionary.d-sae {start.d_sae} or more"
        )
    if dictionary.activation.learns_threshold and not start.activation.learns_threshold:
        raise ValueError(
            f"{folder} has no thresholds for JumpReLU to continue; use {type(start.activation).__name__}, as it does"
        )
