"""One step of ISTA after the encoder: what a first code leaves over is read again (Gregor & LeCun 2010; eta = `step`).

    z0 = select(pre(x)),   r = x - b_dec - z0 @ W_dec,   z = select(pre(x) + eta r @ W_enc) = select(pre(x + eta r))

Latents that explain the same thing hold one another down, which a linear encoder cannot do. Both codes are chosen alike
and both pass gradients: entries on SynthSAEBench that cut the first ones off did worse. The step is the same for
activations scaled, shifted or whitened, so that it folds. No other library has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveFloat, PositiveInt
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK, threshold_at
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.selection import check_k
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.weights import Acts, Path, Weights

ROUNDING = 1e-6
"""Share by which the first threshold is lowered, so that rounding leaves out none of the latents it is to keep."""


def read_again(dictionary: Weights, x: Acts, z: Codes, step: float) -> Acts:
    """Return the rows whose pre-activations are those of a step of this size from codes z of x."""
    return x + step * (x - dictionary.b_dec - z.decode(dictionary.W_dec))


@dataclass(frozen=True)
class IstaBatchTopK(Activation):
    """BatchTopK after one step of ISTA from BatchTopK codes; used, and saved, as `IstaJumpReLU`."""

    k: PositiveInt = 32
    step: PositiveFloat = 0.3
    """Size of the step (eta); .25 to .3 in the entries on SynthSAEBench."""
    compares_latents: ClassVar[bool] = True
    for_training_only: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    def encode(self, dictionary: Weights, x: Acts, path: Path) -> Codes:
        select = BatchTopK(self.k)
        first = select.encode(dictionary, x, path)
        return select.encode(dictionary, read_again(dictionary, x, first, self.step), path)

    def for_inference(self, dictionary: Weights, sample: Acts) -> tuple[Activation, Mapping[str, Tensor]]:
        """Return IstaJumpReLU with a calibrated threshold for each of the two codes."""
        first = BatchTopK(self.k).encode(dictionary, sample, "auto")
        before = threshold_at(self.k, dictionary.chunks(sample))
        after = threshold_at(self.k, dictionary.chunks(read_again(dictionary, sample, first, self.step)))
        ratio = before / after * (1 - ROUNDING) if before > 0 and after > 0 else 1.0
        thresholds = torch.full_like(dictionary.threshold, after)
        return IstaJumpReLU(self.step, ratio), {**dictionary.state_dict(), "threshold": thresholds}

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        return BatchTopK(self.k).thresholds(dictionary, z, rows, latents)

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae)


@dataclass(frozen=True)
class IstaJumpReLU(Activation):
    """JumpReLU with fixed thresholds after one step of ISTA from JumpReLU codes: what trained `IstaBatchTopK` is."""

    step: PositiveFloat = 0.3
    """Size of the step (eta)."""
    first: NonNegativeFloat = 1.0
    """Thresholds of the first codes, as a multiple of those of the second."""
    learns_threshold: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    def encode(self, dictionary: Weights, x: Acts, path: Path) -> Codes:
        select = JumpReLU(bandwidth=0.0)
        first = select.encode_above(dictionary, x, path, self.first * dictionary.threshold)
        return select.encode(dictionary, read_again(dictionary, x, first, self.step), path)

    def initialise(self, dictionary: Weights, sample: Acts) -> None:
        JumpReLU().initialise(dictionary, sample)

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        return dictionary.threshold[latents]
