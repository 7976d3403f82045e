"""Atoms should move downstream layers, each differently: exponential DCT in kernel form (after Mack and Turner 2024).

    -tr( E (Gamma + ridge I)^-1 E' ) / (|S| e),   E = [Delta°(R d_j)]_(j in S),   Gamma = expm1(D_S D_S')

S are sampled living latents, e the moving average of |Delta°(R r)|^2 over random unit r. This is DCT's functional loss
with the output vectors eliminated: for orthonormal atoms it is MELBO's reward over exp(1) - 1, and Gamma^-1 relaxes
orthogonality. Contexts are raw activations; atoms are directions, so the radius R alone is in raw units.

Unlike in `melbo`, no log and no cap: an output that is moved far more than others has most of the gradient. Atoms
are pushed at every kept token, whether or not they fire there; without `budget_kl` nothing asks that the model makes
sense afterwards.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import NonNegativeFloat, PositiveFloat, PositiveInt, ShareBelowOne
from unbraid.effects.effect import pooled_effect
from unbraid.effects.kernel import explained
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput
from unbraid.sources.base import Contexts
from unbraid.terms.statistics.moving_average import move
from unbraid.terms.statistics.single_effects import Singles, share_singles
from unbraid.terms.statistics.step_lengths import LENGTHS, lengths_of, shares_of
from unbraid.terms.statistics.step_radius import probe_pushes, step_radius


@dataclass(frozen=True, kw_only=True)
class Effect(Term):
    every: int = 8
    columns: PositiveInt = 16
    """Latents sampled each time."""
    radius: NonNegativeFloat = 0.0
    """Size of the perturbation, in raw units; 0 calibrates it at the first use."""
    ridge: PositiveFloat = 1e-2
    """Added to the diagonal of Gamma: duplicates among the sampled atoms must not be singular."""
    probes: PositiveInt = 4
    """Random directions measured each time, to know what an effect is worth."""
    decay: ShareBelowOne = 0.9
    """Of the moving average of random directions' effects."""
    budget_kl: NonNegativeFloat = added(0.0)
    """Next-token KL, in nats, at which each latent gets its own length, and counts by its effect per unit of sqrt(KL);
    0: one radius for all."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    per_latent: ClassVar[tuple[str, ...]] = (LENGTHS,)
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        chosen = step.sampled_latents(self.columns)
        if not len(chosen):
            return step.no_loss()
        atoms, contexts = step.directions(step.dictionary.W_dec.index_select(0, chosen)), step.contexts()
        radius = step_radius(step, self.radius)
        usual = self._usual_effect(step, contexts, radius)
        if self.budget_kl:
            pushes = lengths_of(step, chosen, radius) * atoms
            shares = shares_of(step, chosen, pushes, self.budget_kl, radius)
            effects = pooled_effect(contexts, pushes) * shares.unsqueeze(1)
        else:
            effects = pooled_effect(contexts, radius * atoms)
            share_singles(step, Singles(chosen, effects, radius))
        loss = -explained(effects, atoms, self.ridge) / (len(atoms) * usual)
        relative = effects.detach().square().sum(1).mean() / usual
        return TermOutput(loss, {"effect_over_random": relative, "radius": torch.tensor(radius)})

    @torch.no_grad()
    def _usual_effect(self, step: Step, contexts: Contexts, radius: float) -> Float[Tensor, ""]:
        """Moving average of the squared effect of random directions."""
        pushes = probe_pushes(step, self.probes, radius, first="usual_effect" not in step.memory)
        now = pooled_effect(contexts, pushes).square().sum(1).mean()
        # Effects this far below the perturbation are rounding; a slice that does nothing would be noise over noise.
        now = now.clamp_min(1e-8 * radius**2)
        return move(step.memory, "usual_effect", now, self.decay)
