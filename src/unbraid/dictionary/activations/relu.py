"""ReLU: max(pre, 0)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from unbraid.dictionary.activations.base import Thresholded
from unbraid.dictionary.weights import Latents


@dataclass(frozen=True)
class ReLU(Thresholded):
    """max(pre, 0)."""

    homogeneous: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return pre.relu()

    def architecture(self) -> Mapping[str, Any]:
        return {"architecture": "standard"}
