"""Functional orthogonality: atoms' effects on downstream layers should differ (OroJaR and DCT, by the largest cosine).

    mean_i max_(j != i) relu(cos(E_i, E_j))^2,     E_i = Delta°(R d_i), the effect of a finite push along atom i

over sampled living atoms and each one's nearest neighbour among all atoms: duplicates hardly ever fire together, so
neighbours must be sampled for splitting to cost anything. It says nothing of how large effects are; add `effect`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.effects.effect import pooled_effect
from unbraid.effects.independence import norm_one
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.nearest_atoms import nearest_to
from unbraid.terms.statistics.step_radius import step_radius


@dataclass(frozen=True, kw_only=True)
class FunctionalOrthogonality(Term):
    start: float = 0.2
    every: int = 8
    columns: PositiveInt = 8
    """Latents sampled each time; and as many neighbours."""
    neighbours: bool = True
    """Sample each one's nearest atom too. Without, only chance brings duplicates together."""
    radius: NonNegativeFloat = 0.0
    """Size of a push, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    family: ClassVar[Family] = "causal"

    def __call__(self, step: Step) -> TermOutput:
        chosen, atoms = step.sampled_latents(self.columns), step.directions(step.dictionary.W_dec)
        if self.neighbours and len(chosen):
            chosen = torch.cat([chosen, nearest_to(atoms.detach(), chosen)]).unique()
        if len(chosen) < 2:
            return step.no_loss()
        contexts = step.contexts()
        radius = step_radius(step, self.radius)
        effects = pooled_effect(contexts, radius * atoms.index_select(0, chosen))
        closest = largest_cosines(effects)
        return TermOutput(closest.relu().square().mean(), {"cosine": closest.mean(), "radius": torch.tensor(radius)})


def largest_cosines(effects: Float[Tensor, "k d_out"]) -> Float[Tensor, " k"]:
    """Cosine of each effect with the one of the others that is most like it."""
    units = norm_one(effects)
    cosines = units @ units.T
    hidden = torch.eye(len(units), dtype=torch.bool, device=units.device)
    return cosines.masked_fill(hidden, -1).amax(1)
