"""TopK: the k largest latents of every row, rectified (Gao et al. 2024, arXiv 2406.04093)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveInt
from unbraid.dictionary.activations.base import Selecting
from unbraid.dictionary.activations.selection import Selection, check_k, largest_of_rows
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.weights import Chunks, Latents, Weights


@dataclass(frozen=True)
class TopK(Selecting):
    """The k largest latents of every row, rectified (Gao et al. 2024)."""

    k: PositiveInt = 32
    compares_latents: ClassVar[bool] = True
    same_l0: ClassVar[bool] = True

    def support(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        return None if self.k / chunks.d_sae > dense_above else largest_of_rows(chunks, self.k)

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, latents, values.relu())

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Return the smallest active value of each row, 0 where none is active."""
        values, at, _ = z.entries()
        least = values.new_zeros(z.batch).scatter_reduce(0, at, values.detach(), "amin", include_self=False)
        return least[rows]

    def architecture(self) -> Mapping[str, Any]:
        return {"architecture": "topk", "k": self.k, "rescale_acts_by_decoder_norm": False}

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae)
