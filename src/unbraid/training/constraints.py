"""Constraints that hold after every step: atoms of unit norm, near their start, orthonormal in blocks; readers aligned.

A constraint is kept by projection: first the gradient, without its part along each atom, then the updated atoms.
"""

import torch

from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.constraints import align, clip_cosine_to_init
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.orthonormalise import orthonormalise_blocks


class Constraints:
    """The constraints that a configuration sets on a dictionary. They keep nothing that a checkpoint must:
    the atoms at the start are the same again when training is resumed."""

    def __init__(self, config: DictionaryConfig, dictionary: Dictionary):
        """`dictionary`: as it starts; its atoms are those that trained ones are held near."""
        self._config, self._dictionary = config, dictionary
        self._start = dictionary.W_dec.detach().clone() if config.min_cosine_to_init > -1 else None

    def project_gradient(self) -> None:
        """Remove what of the atoms' gradient their unit norm would undo."""
        self._dictionary.project_gradient()

    @torch.no_grad()
    def apply(self) -> None:
        """Bring the updated atoms back to the constraints."""
        self._dictionary.renormalise()
        atoms, blocks = self._dictionary.W_dec.data, self._config.orthonormal_blocks
        if self._start is not None:
            atoms.copy_(clip_cosine_to_init(atoms, self._start, self._config.min_cosine_to_init))
        if blocks and self._dictionary.W_dec.requires_grad:
            atoms.copy_(orthonormalise_blocks(atoms, blocks))
        if self._config.aligned:
            align(self._dictionary)
