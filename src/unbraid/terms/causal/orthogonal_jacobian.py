"""Orthogonal Jacobian through downstream layers: atoms' effects should be orthogonal (OroJaR, arXiv 2203.07251).

    Var_v |first(v)|^2 / (mean_v |first(v)|^2)^2,   first(v) = (E(theta(v)) - E(-theta(v))) / 2   (effects.curvature)

For a linear map this is 2 sum_(i != j) (J d_i . J d_j)^2 over the square of their sum of squares. On the decoder itself
it would be the frame potential, which copies of a basis minimise as well as anything: here it uses effects, and of
finite pushes, here. Normalised, for the reason the Hessian penalty is.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import NonNegativeFloat, TwoOrMore
from unbraid.effects.curvature import overlap
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.step_radius import step_pushes


@dataclass(frozen=True, kw_only=True)
class OrthogonalJacobian(Term):
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
        return TermOutput(overlap(found.first), {"radius": found.radius})
