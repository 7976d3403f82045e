"""BatchTopK: the k * batch largest latents of the whole batch, rectified (Bussmann et al. 2024, arXiv 2412.06410).

Rows then share a budget, so a trained dictionary gets one threshold that keeps k a row on average, and is used, and
saved, as JumpReLU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import PositiveInt, ShareAboveZero
from unbraid.dictionary.activations import cpu_search
from unbraid.dictionary.activations.base import Activation, Selecting
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.selection import Selection, annealed_k, calibrate, check_anneal, check_k, largest
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.weights import Acts, Chunks, Latents, Weights


@dataclass(frozen=True)
class BatchTopK(Selecting):
    """The k * batch largest latents of the whole batch, rectified (Bussmann et al. 2024).

    Rows then share a budget, so a trained dictionary is given one threshold that keeps k a row on average and is used,
    and saved, as JumpReLU.
    """

    k: PositiveInt = 32
    first_k: Annotated[float, Ge(1)] = added(1.0)
    """Latents kept at the start of training, as a multiple of k, falling in a line to k; 1 keeps k throughout."""
    anneal: ShareAboveZero = added(0.8)
    """Share of training after which k itself is kept."""
    compares_latents: ClassVar[bool] = True
    for_training_only: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def support(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        # Shared out, codes stay sparse: `dense` sees this process's pairs alone.
        dense = self.k / chunks.d_sae > dense_above and chunks.among.alone
        return None if dense else largest(chunks, self.k)

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        flat = pre.relu().view(-1)
        count = min(self.k * pre.shape[0], flat.numel())
        if cpu_search.searchable(flat) and count and (kept := cpu_search.among_largest(flat, count)) is not None:
            return (flat * kept).view_as(pre)
        values, index = flat.topk(count, sorted=False)
        return torch.zeros_like(flat).scatter(0, index, values).view_as(pre)

    def for_inference(self, dictionary: Weights, sample: Acts) -> tuple[Activation, Mapping[str, Tensor]]:
        """Return JumpReLU with one calibrated threshold."""
        thresholds = torch.full_like(dictionary.threshold, threshold_at(self.k, dictionary.chunks(sample)))
        return JumpReLU(bandwidth=0.0), {**dictionary.state_dict(), "threshold": thresholds}

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Return the smallest active value of the batch, 0 where none is active."""
        values, _, _ = z.entries()
        least = values.new_zeros(len(rows))
        return least + values.detach().min() if values.numel() else least

    def check_together(self) -> None:
        check_anneal(self.first_k, self.anneal, type(self).anneal)

    def at(self, progress: float) -> "BatchTopK":
        return BatchTopK(annealed_k(self.k, self.first_k, self.anneal, progress)) if self.first_k > 1 else self

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae, self.first_k)


def threshold_at(k: int, chunks: Chunks) -> float:
    """Return the threshold above which k latents a row are on average; 0 where none is positive."""
    # JumpReLU keeps what is strictly above its threshold, and the calibrated value is the smallest kept.
    return float(torch.nextafter(torch.tensor(calibrate(k, chunks)), torch.tensor(0.0)))
