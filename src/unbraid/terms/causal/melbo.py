"""Atoms should move downstream layers where their latents fire: MELBO's reward (Mack and Turner 2024), capped.

    -mean_j min( log s_j / s, cap ),   s_j = ( mean_i ( mean_(t in I_ij) |Delta°_t(R d_j)|^p )^(1/q) )^(q/p)

i are sequences and I_ij the kept tokens in them at which latent j fires; s is the moving average of the same of random
unit directions over all kept tokens; the size is taken a token at a time, before any mean, as in the post (the released
code takes it over tokens instead, the same at p = 2 alone). Sums are means here, so that how often a latent fires is no
reward. Log and cap: a few sensitive latents must not own the gradient. Sequences may: they are averaged before the log,
and at q = 1 the one that is moved 50 times as much as seven others has all of it; q = p shares it out better. Nothing
keeps atoms apart: alone, all turn to the one most sensitive direction. `effect` has diversity built in.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import NonNegativeFloat, PositiveInt, ShareBelowOne
from unbraid.effects.effect import everywhere, token_effects
from unbraid.effects.reward import capped_log
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput
from unbraid.sources.base import Contexts
from unbraid.terms.statistics.moving_average import move
from unbraid.terms.statistics.step_lengths import LENGTHS, lengths_of, shares_of
from unbraid.terms.statistics.step_radius import probe_pushes, step_radius
from unbraid.terms.statistics.where_latents_fire import firing


@dataclass(frozen=True, kw_only=True)
class MelboReward(Term):
    every: int = 8
    columns: PositiveInt = 16
    """Latents sampled each time, of those that fire in the contexts at hand."""
    radius: NonNegativeFloat = 0.0
    """Size of the perturbation, in raw units; 0 calibrates it at the first use."""
    p: Annotated[float, Ge(1)] = 2.0
    """Power of a token's effect: above 2 the most moved tokens count most. The post has 2 and 4."""
    q: Annotated[float, Ge(1)] = 1.0
    """Root of a sequence's: above 1 the most moved sequences count less. The post has 1 and p."""
    cap: NonNegativeFloat = 2.0
    """Logarithm of the size, in those of random directions, beyond which more is worth nothing; 0 for no cap."""
    probes: PositiveInt = 4
    """Random directions measured each time, to know what an effect is worth."""
    decay: ShareBelowOne = 0.9
    """Of the moving average of random directions' effects."""
    budget_kl: NonNegativeFloat = added(0.0)
    """Next-token KL, in nats, at which each latent gets its own length and is rewarded for its effect per unit of
    sqrt(KL); 0: one radius for all, where the largest effects are those that break the model."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    per_latent: ClassVar[tuple[str, ...]] = (LENGTHS,)
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        active = firing(step)
        chosen = active.sampled(self.columns, step.rng)
        if not len(chosen):
            return step.no_loss()
        contexts = step.contexts()
        radius = step_radius(step, self.radius)
        usual = self._usual_size(step, contexts, active.sequences, radius)
        atoms = step.directions(step.dictionary.W_dec.index_select(0, chosen))
        lengths = lengths_of(step, chosen, radius) if self.budget_kl else radius
        pushes = everywhere(lengths * atoms, contexts)
        sizes = self._sizes(token_effects(contexts, pushes), active.where(chosen), active.sequences)
        if self.budget_kl:
            sizes = sizes * shares_of(step, chosen, lengths * atoms, self.budget_kl, radius)
            radius = float(step.memory[LENGTHS][chosen].mean())
        reward = capped_log(sizes / usual, self.cap)
        metrics = {"effect_over_random": sizes.detach().mean() / usual, "radius": torch.tensor(radius)}
        return TermOutput(-reward.mean(), metrics)

    def _sizes(
        self,
        effects: Float[Tensor, "k token d_out"],
        counted: Bool[Tensor, "k token"],
        sequences: Int[Tensor, " token"],
    ) -> Float[Tensor, " k"]:
        """s_j, over the counted tokens. Every row counts some."""
        powers = torch.linalg.vector_norm(effects, dim=2).pow(self.p) * counted
        empty = effects.new_zeros(len(effects), int(sequences.max()) + 1)
        tokens = empty.index_add(1, sequences, counted.to(empty))
        means = empty.index_add(1, sequences, powers) / tokens.clamp_min(1)
        rooted = means.clamp_min(1e-30).pow(1 / self.q) * (tokens > 0)
        return (rooted.sum(1) / (tokens > 0).sum(1)).pow(self.q / self.p)

    @torch.no_grad()
    def _usual_size(self, step: Step, contexts: Contexts, sequences: Tensor, radius: float) -> Float[Tensor, ""]:
        """Moving average of the size of random directions."""
        pushes = probe_pushes(step, self.probes, radius, first="usual_size" not in step.memory)
        effects = token_effects(contexts, everywhere(pushes, contexts))
        counted = torch.ones(effects.shape[:2], dtype=torch.bool, device=effects.device)
        # Effects this far below the perturbation are rounding; a slice that does nothing would be noise over noise.
        now = self._sizes(effects, counted, sequences).mean().clamp_min(1e-4 * radius)
        return move(step.memory, "usual_size", now, self.decay)
