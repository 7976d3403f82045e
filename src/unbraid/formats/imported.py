"""Starting from an SAE that others trained, and staying there: what an imported run is an experiment of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch

from unbraid.config.settings import Matches, SomeText
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.weights import Acts
from unbraid.formats import recognise
from unbraid.formats.published import Published


@dataclass(frozen=True, kw_only=True)
class Imported(Initialisation):
    """A published SAE as it is: for raw activations, so with --training.normalise none. To train on, start from the
    imported run with Extension."""

    folder: SomeText
    """Where it was: a folder of SAELens, dictionary_learning, sparsify or Gemma Scope."""
    sha256: Annotated[str, Matches(r"[0-9a-f]{64}", "a SHA-256: 64 hexadecimal digits")]
    """Of its weights, so that the run is named by what it holds."""
    format: SomeText
    """Whose folder it is."""
    architecture: SomeText
    """What that library calls it."""
    standard: bool = True
    """Whether it was trained for reconstruction and sparsity alone, so that a report counts it among the baselines."""
    sets_thresholds: ClassVar[bool] = True

    def read(self) -> Published:
        """Read the published SAE again. Raises ValueError when its weights have changed."""
        folder = Path(self.folder)
        if recognise.digest(folder) != self.sha256:
            raise ValueError(f"the weights in {folder} are not those that were named; import them anew")
        return recognise.read(folder)

    @torch.no_grad()
    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if origin is not None and not origin.normaliser.changes_nothing:
            raise ValueError("a published SAE reads raw activations: set --training.normalise none")
        theirs = self.read().dictionary
        if (theirs.d_in, theirs.d_sae) != (dictionary.d_in, dictionary.d_sae):
            raise ValueError(
                f"{self.folder} has {theirs.d_sae} latents of {theirs.d_in} dimensions; expected "
                f"{dictionary.d_sae} of {dictionary.d_in}: set --dictionary.d-sae {theirs.d_sae}, and a source to match"
            )
        for name, parameter in theirs.named_parameters():
            getattr(dictionary, name).copy_(parameter)
