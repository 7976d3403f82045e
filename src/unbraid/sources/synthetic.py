"""The base of sources that draw independent samples of their own, without end, and know the factors behind them."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.serialise import fingerprint
from unbraid.sources.base import Batch, Block, Source, Split
from unbraid.sources.truth import Truth


class Synthetic(Source, Truth):
    """A source of samples without text: each row is a document of its own, and no two depend on each other."""

    kind: ClassVar[str]
    """The word under which a folder says which source it is of."""

    @property
    def has_documents(self) -> bool:
        return False

    def truth(self) -> Truth:
        return self

    def available(self, split: Split) -> float:
        return math.inf

    def metadata(self) -> Mapping[str, str | int | bool]:
        return {
            "model_name": self.kind,
            "hook_name": "blocks.0.hook_resid_post",
            "hook_layer": 0,
            "context_size": 1,
            "prepend_bos": False,
            self.kind: self.identity(),
        }

    def identity(self) -> str:
        """Return the text that tells this source from others of its kind."""
        return fingerprint(self)

    def sample_text(self, count: int) -> list[str]:
        return []

    def block(self, index: int, *, split: Split, seed: int) -> Block:
        x = self.samples(index, split, seed)
        documents = torch.arange(index * len(x), (index + 1) * len(x))
        return Block(Batch(x, torch.full_like(documents, -1), documents, torch.zeros_like(documents)))

    @abstractmethod
    def samples(self, index: int, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        """Return the activations of block `index`, as many in each."""
