"""L1 of the gate: sum of relu(gate_i) over open gates, averaged over tokens (Rajamanoharan et al. 2024a, eq. 8).

Magnitudes are not charged, so they need not shrink. Of a ReLU dictionary this is L1.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.dictionary.activations.gated import gate_codes
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class GateL1(Term):
    family: ClassVar[Family] = "sparsity"
    splits: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def check_activation(self, activation: Activation) -> None:
        if not isinstance(activation, Thresholded):
            raise ValueError(f"{type(activation).__name__} has no gate to charge; use --dictionary.activation Gated")

    def __call__(self, step: Step) -> TermOutput:
        self.check_activation(step.dictionary.activation)
        return TermOutput(gate_codes(step.z, step.dictionary.threshold).values.sum() / step.z.batch)
