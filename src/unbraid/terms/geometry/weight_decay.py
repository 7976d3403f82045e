"""Plain decay of weights: more latents shared between seeds, twice the success of steering (WREG, arXiv 2603.04198).

    power 2:   mean_i |w_i|_2^2              w_i: what latent i reads, a column of W_enc
    power 1:   mean_i |w_i|_1 + |d_i|_1      d_i: its atom, a row of W_dec

Atoms have unit norm, so that decay of their squares is undone after every step: power 2 reaches the encoder alone,
where they decay the decoder too. Their L1 under unit norm is another matter: it is least for atoms on the axes, so it
depends on the basis of x. Biases and thresholds are never decayed. Where latents are chosen by rank (TopK), a smaller
w_i means smaller values and fewer firings of latent i; dead latents decay to nothing. `training.weight_decay` differs:
it is decoupled, so that Adam does not rescale it, and reaches all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unbraid.dictionary.initialisation import Claim
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class WeightDecay(Term):
    every: int = 5
    power: Literal[1, 2] = 2
    """1 decays absolute values, of atoms too; 2 squares."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        readers, atoms = step.dictionary.W_enc, step.dictionary.W_dec
        total = readers.square().sum() if self.power == 2 else readers.abs().sum() + atoms.abs().sum()
        return TermOutput(total / len(atoms))
