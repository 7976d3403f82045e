"""Sparse Jacobian through downstream layers: an atom should move few of their outputs (arXiv 2604.17568).

    mean_i  |J_i|_1 / (sqrt(d_out) |J_i|_2),    J_i = (E(R d_i) - E(-R d_i)) / 2,    E: mean effect at kept tokens

The paper's one bias towards identifying latents is an L1 norm of the Jacobian from latents to what they generate.
Divided by the L2 norm, as here, it does not fall when effects do: 1 is an effect spread evenly over all outputs,
1 / sqrt(d_out) one on a single output. Outputs are the coordinates of the last downstream layer, so it asks for atoms
that act along these axes, and depends on their basis as `orthogonal_jacobian` does not. Pushes are finite.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.effects.effect import pooled_effect
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.step_radius import step_radius


@dataclass(frozen=True, kw_only=True)
class JacobianL1(Term):
    start: float = 0.2
    every: int = 8
    columns: PositiveInt = 8
    """Latents sampled each time: each costs two perturbed passes."""
    radius: NonNegativeFloat = 0.0
    """Size of a push, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    family: ClassVar[Family] = "causal"

    def __call__(self, step: Step) -> TermOutput:
        atoms = step.directions(step.sampled_atoms(self.columns))
        if not len(atoms):
            return step.no_loss()
        contexts, radius = step.contexts(), step_radius(step, self.radius)
        up, down = pooled_effect(contexts, torch.cat([radius * atoms, -radius * atoms])).chunk(2)
        first = (up - down) / 2
        sizes = torch.linalg.vector_norm(first, dim=1).clamp_min(1e-8 * radius)  # effects below that are rounding
        spread = first.abs().sum(1) / (first.shape[1] ** 0.5 * sizes)
        return TermOutput(spread.mean(), {"radius": torch.tensor(radius)})
