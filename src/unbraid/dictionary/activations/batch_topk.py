"""BatchTopK: the k * batch largest latents of the whole batch, rectified (Bussmann et al. 2024, arXiv 2412.06410).

Rows then share a budget, so a trained dictionary gets one threshold that keeps k a row on average, and is used, and
saved, as JumpReLU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveInt
from unbraid.dictionary.activations.base import Activation, Selecting
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.selection import Selection, calibrate, check_k, largest
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.weights import Acts, Chunks, Latents, Weights


@dataclass(frozen=True)
class BatchTopK(Selecting):
    """The k * batch largest latents of the whole batch, rectified (Bussmann et al. 2024).

    Rows then share a budget, so a trained dictionary is given one threshold that keeps k a row on average and is used,
    and saved, as JumpReLU.
    """

    k: PositiveInt = 32
    compares_latents: ClassVar[bool] = True
    for_training_only: ClassVar[bool] = True

    def support(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        return None if self.k / chunks.d_sae > dense_above else largest(chunks, self.k)

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        flat = pre.relu().view(-1)
        values, index = flat.topk(min(self.k * pre.shape[0], flat.numel()), sorted=False)
        return torch.zeros_like(flat).scatter(0, index, values).view_as(pre)

    def for_inference(self, dictionary: Weights, sample: Acts) -> tuple[Activation, Mapping[str, Tensor]]:
        """Return JumpReLU with one calibrated threshold."""
        threshold = calibrate(self.k, dictionary.chunks(sample))
        # JumpReLU keeps what is strictly above its threshold, and the calibrated value is the smallest kept.
        below = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0))
        thresholds = torch.full_like(dictionary.threshold, float(below))
        return JumpReLU(bandwidth=0.0), {**dictionary.state_dict(), "threshold": thresholds}

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Return the smallest active value of the batch, 0 where none is active."""
        values, _, _ = z.entries()
        least = values.new_zeros(len(rows))
        return least + values.detach().min() if values.numel() else least

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae)
