"""Hessian penalty, downstream: pairs of atoms should not interact (Peebles et al. 2020, arXiv 2008.10599).

    Var_v [E(theta(v)) + E(-theta(v))] / mean_v |E(theta(v)) - E(-theta(v))|^2 * 4          (effects.curvature)

v are random signs of sampled living atoms, E their pooled effect. On the decoder, which is linear, the penalty is zero
whatever the atoms: it must look through the model. Unlike the original it is normalised, as in Tripod (Hsu et al.
2024): else atoms that do nothing would be best.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import NonNegativeFloat, TwoOrMore
from unbraid.effects.curvature import cross_curvature
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.step_radius import step_pushes


@dataclass(frozen=True, kw_only=True)
class Hessian(Term):
    start: float = 0.2
    every: int = 8
    columns: TwoOrMore = 8
    """Latents sampled each time."""
    samples: TwoOrMore = 4
    """Random signs: each costs two perturbed passes."""
    radius: NonNegativeFloat = 0.0
    """Size of a push, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    family: ClassVar[Family] = "causal"

    def __call__(self, step: Step) -> TermOutput:
        found = step_pushes(step, self.columns, self.samples, self.radius)
        if found is None:
            return step.no_loss()
        return TermOutput(cross_curvature(found.first, found.second), {"radius": found.radius})
