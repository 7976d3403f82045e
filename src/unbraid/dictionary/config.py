"""The settings of a dictionary, from which it is built."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt

from unbraid import seeding
from unbraid.config.serialise import added
from unbraid.config.settings import NonNegativeInt, PositiveInt, Settings
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.constraints import align
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin, RandomAtoms
from unbraid.dictionary.orthonormalise import orthonormalise_blocks
from unbraid.dictionary.weights import Acts
from unbraid.system.group import ALONE, Group

Parameter = Literal["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]
Cosine = Annotated[float, Ge(-1), Lt(1)]
"""A smallest cosine; -1 sets none. Atoms that are to stay where they start are frozen instead."""


@torch.no_grad()
def start_orthonormal(dictionary: Dictionary, size: int) -> None:
    """Make blocks of atoms orthonormal, and an encoder that is their transpose with them."""
    tied = torch.equal(dictionary.W_enc, dictionary.W_dec.T)
    dictionary.W_dec.copy_(orthonormalise_blocks(dictionary.W_dec, size))
    if tied:
        dictionary.W_enc.copy_(dictionary.W_dec.T)


@dataclass(frozen=True, kw_only=True)
class DictionaryChoices(Settings):
    """The settings of a dictionary but its width, which members of a study may have in common."""

    activation: Activation = TopK(32)
    """Which latents stay active, and how many."""
    init: Initialisation = RandomAtoms()
    """How atoms start."""
    frozen: tuple[Parameter, ...] = ()
    """Parameters that are not trained, among W_enc b_enc W_dec b_dec: ("W_dec",) is the frozen-decoder control."""
    min_cosine_to_init: Cosine = -1.0
    """Smallest cosine of a trained atom to where it started; -1 leaves atoms free. 0.8 is the soft-frozen decoder of
    Korznikov et al. 2026 (arXiv 2602.14111)."""
    orthonormal_blocks: NonNegativeInt = 0
    """Keep every so many atoms in a row exactly orthonormal: retracted to the nearest such block at the start and after
    each update. It divides d_sae and is at most d_in; 0 leaves atoms free. The strict form of the decoder penalties."""
    aligned: bool = added(False)
    """Keep the product of what a latent reads and its atom exactly 1: readers are moved along their atoms to it at the
    start and after each update (aligned training, arXiv 2605.18629, which builds it into the parameters)."""


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(DictionaryChoices):
    """The settings of a dictionary: its width, activation, initialisation and constraints."""

    d_sae: PositiveInt = 4096
    """Number of latents."""

    def check_together(self) -> None:
        size = self.orthonormal_blocks
        self.activation.check_width(self.d_sae)
        if size and self.d_sae % size:
            raise ValueError(
                f"orthonormal_blocks {size} does not divide d_sae = {self.d_sae}: "
                "set --dictionary.orthonormal-blocks to a divisor, or 0 for none"
            )
        if size and self.min_cosine_to_init > -1:
            raise ValueError("orthonormal_blocks and min_cosine_to_init both restrict atoms; set only one of them")
        if self.aligned and ("W_enc" in self.frozen or self.activation.tied):
            why = "W_enc is frozen" if "W_enc" in self.frozen else f"{type(self.activation).__name__} has none"
            raise ValueError(f"aligned moves the encoder, and {why}: leave out one of the two")

    def build(
        self, sample: Acts, *, seed: int, bfloat16: bool = False, origin: Origin | None = None, shards: Group = ALONE
    ) -> Dictionary:
        """Return an initialised dictionary on the CPU. `sample`: normalised activations [batch, d_in]. `shards`: the
        processes that hold it together; this one gets its share. Raises ValueError for settings that these activations
        do not allow."""
        dictionary = Dictionary(sample.shape[1], self.d_sae // shards.size, self.activation, bfloat16=bfloat16)
        dictionary.shards = shards
        if self.orthonormal_blocks > dictionary.d_in:
            raise ValueError(
                f"{self.orthonormal_blocks} atoms cannot be orthonormal in {dictionary.d_in} dimensions: "
                f"set --dictionary.orthonormal-blocks to {dictionary.d_in} or less"
            )
        self.init(dictionary, sample, seeding.stream(seed, "init"), origin)
        if self.orthonormal_blocks:
            start_orthonormal(dictionary, self.orthonormal_blocks)
        if self.aligned:
            align(dictionary)
        dictionary.tie()
        if not self.init.sets_thresholds:
            self.activation.initialise(dictionary, sample)
        for name in self.frozen:
            getattr(dictionary, name).requires_grad_(False)
        return dictionary
