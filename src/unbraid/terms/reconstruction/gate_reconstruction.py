"""Gated SAEs train their gate by having it reconstruct alone (Rajamanoharan et al. 2024a, eq. 8).

    |x - b_dec - relu(gate) @ W_dec|^2, averaged over tokens, W_dec and b_dec held fixed

In relu(gate) the decoder's b_dec is fixed, the encoder's is not, as in the paper's code. SAELens lets this term move
the decoder as well; dictionary_learning does not, and neither do we.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.dictionary.activations.gated import gate_codes
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class GateReconstruction(Term):
    family: ClassVar[Family] = "reconstruction"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        if not isinstance(activation, Thresholded):
            raise ValueError(f"{type(activation).__name__} has no gate to teach; use --dictionary.activation Gated")

    def __call__(self, step: Step) -> TermOutput:
        dictionary = step.dictionary
        self.check_activation(dictionary.activation)
        alone = gate_codes(step.z, dictionary.threshold).decode(dictionary.W_dec.detach()) + dictionary.b_dec.detach()
        error = (alone - step.x).square().sum()
        return TermOutput(error / len(step.x), step.fvu(error))
