"""Atoms should move downstream layers, to first order: MELBO's reward (Mack and Turner 2024) as its radius goes to 0.

    -mean_j min( 1/2 log( |M d_j|^2 / (|M|^2 / d_in) ), cap ),   M = W J, random combinations of the slice's derivatives

over all living latents at once, without a pass through the slice but when M is drawn anew (`effects.sketch`);
|M|^2 / d_in is what random unit directions have. What |M d_j|^2 says of one latent is off by sqrt(2 / rows), relative.
The tangent is blind to gates that are closed where the contexts are, and nothing keeps atoms apart.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.effects.reward import capped_log
from unbraid.effects.sketch import sketched_jacobian
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class EffectSketch(Term):
    every: int = 4
    rows: PositiveInt = 32
    """Random combinations of derivatives."""
    refresh: PositiveInt = 50
    """Draw M anew, on new contexts, every so many uses."""
    cap: NonNegativeFloat = 2.0
    """Logarithm of the size, in those of random directions, beyond which more is worth nothing; 0 for no cap."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        age = int(step.memory.get("age", 0))
        if age % self.refresh == 0:
            step.memory["sketch"] = sketched_jacobian(step.contexts(), self.rows, step.rng).to(step.dictionary.W_dec)
        step.memory["age"] = torch.tensor(age + 1)
        sketch, living = step.memory["sketch"], step.living_latents
        if not len(living):
            return step.no_loss()
        # Derivatives this small, the skip path's being 1, are rounding.
        usual = (sketch.square().sum() / sketch.shape[1]).clamp_min(1e-8)
        # All atoms are multiplied: choosing the living ones first would copy nearly all, and their gradient again.
        squares = (step.directions(step.dictionary.W_dec) @ sketch.T)[living].square().sum(1) / usual
        reward = 0.5 * capped_log(squares, 2 * self.cap)
        return TermOutput(-reward.mean(), {"effect_over_random": squares.detach().mean().sqrt()})
