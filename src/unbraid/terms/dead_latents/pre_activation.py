"""Pre-activation loss: dead latents are drawn to their thresholds (Anthropic, January 2025 update).

    sum over dead i of relu(threshold_i - pre_i) |d_i|, averaged over tokens

The update charges all latents, which is nearly the same: living ones sit far below their thresholds on most tokens too,
and move. Charging the dead alone, as SAELens does, leaves the living to the reconstruction. Zero, and free, while
nothing is dead.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class PreActivation(Term):
    weight: float = 3e-6  # the update's, for activations of unit mean square
    family: ClassVar[Family] = "dead latents"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        if not isinstance(activation, Thresholded):
            raise ValueError(f"{type(activation).__name__} has no threshold for dead latents to be drawn to; use aux_k")

    def __call__(self, step: Step) -> TermOutput:
        dead = step.dead_latents
        if not dead.numel():
            return step.no_loss()
        dictionary = step.dictionary
        readers, bias = dictionary.W_enc.t().index_select(0, dead), dictionary.b_enc.index_select(0, dead)
        pre = torch.addmm(bias, step.x - dictionary.b_dec, readers.t())
        short = (dictionary.threshold.index_select(0, dead) - pre).relu()
        return TermOutput(short.sum() / len(step.x))
