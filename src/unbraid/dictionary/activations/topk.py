"""TopK: the k largest latents of every row, rectified (Gao et al. 2024, arXiv 2406.04093)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import PositiveInt, ShareAboveZero
from unbraid.dictionary.activations import cpu_search
from unbraid.dictionary.activations.base import Selecting
from unbraid.dictionary.activations.selection import Selection, annealed_k, check_anneal, check_k, largest_of_rows
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.weights import Chunks, Latents, Weights


@dataclass(frozen=True)
class TopK(Selecting):
    """The k largest latents of every row, rectified (Gao et al. 2024)."""

    k: PositiveInt = 32
    first_k: Annotated[float, Ge(1)] = added(1.0)
    """Latents kept at the start of training, as a multiple of k, falling in a line to k; 1 keeps k throughout."""
    anneal: ShareAboveZero = added(0.8)
    """Share of training after which k itself is kept."""
    compares_latents: ClassVar[bool] = True
    same_l0: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def support(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        # Of some latents alone `dense` would see the largest of these.
        dense = self.k / chunks.d_sae > dense_above and chunks.shards.alone
        return None if dense else largest_of_rows(chunks, self.k)

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        if cpu_search.searchable(pre) and (kept := cpu_search.among_largest_in_rows(pre, self.k)) is not None:
            return pre.relu() * kept
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

    def check_together(self) -> None:
        check_anneal(self.first_k, self.anneal, type(self).anneal)

    def at(self, progress: float) -> "TopK":
        return TopK(annealed_k(self.k, self.first_k, self.anneal, progress)) if self.first_k > 1 else self

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae, self.first_k)
