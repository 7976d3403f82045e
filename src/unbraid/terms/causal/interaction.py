"""Latents that fire together should not interact in downstream layers, at a finite size, in any context.

    1/2 |s(r1) - s(r2)|^2 / ( mean_r |f(r)|^2 + floor R^2 ),   push(r) = R / sqrt|A| sum_(j in A) r_j d_j,  r_j = +-1
    s(r) = E(push) + E(-push),   f(r) = (E(push) - E(-push)) / 2,   E: Delta° of one token's push, at all kept tokens

A are up to `most` living latents that fire at one token of each sequence, and there they are pushed. For random signs
the numerator is unbiased for 2 sum_(i != j) of the squared joint effects of all pairs (Peebles et al. 2020, arXiv
2008.10599). `hessian` pools effects over contexts first, where interactions of opposite signs cancel, and takes any
atoms, few of which ever fire together. Alone it drives atoms to where downstream layers do not look: the floor bounds
how hard, and only a term that rewards effects (`effect`, `melbo`) opposes it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, TwoOrMore
from unbraid.effects.curvature import random_signs
from unbraid.effects.effect import token_effects
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.step_radius import step_radius
from unbraid.terms.statistics.where_latents_fire import Firing, drawn, firing


@dataclass(frozen=True, kw_only=True)
class Interaction(Term):
    start: float = 0.2
    every: int = 8
    most: TwoOrMore = 4
    """Latents pushed together, at most."""
    samples: TwoOrMore = 2
    """Random signs: each costs two perturbed passes."""
    floor: NonNegativeFloat = 1e-2
    """Squared effect, in units of the squared push, below which interactions need not shrink with it."""
    radius: NonNegativeFloat = 0.0
    """Size of the joint push, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        active = firing(step)
        tokens = one_a_sequence(active, step.rng)
        if not len(tokens):
            return step.no_loss()
        contexts = step.contexts()
        radius = step_radius(step, self.radius)
        pushes = self._pushes(step, active, tokens, radius)
        up, down = token_effects(contexts, torch.cat([pushes, -pushes])).chunk(2)
        cross = by_sequence((up + down).var(0).sum(1), active.sequences)
        first = by_sequence(((up - down) / 2).square().sum(2).mean(0), active.sequences)
        pushed = active.sequences[tokens]
        share = (cross / (first + self.floor * radius**2))[pushed]
        metrics = {"first_order": (first[pushed].mean().sqrt() / radius).detach(), "radius": torch.tensor(radius)}
        return TermOutput(share.mean(), metrics)

    def _pushes(
        self, step: Step, active: Firing, tokens: Int[Tensor, " seq"], radius: float
    ) -> Float[Tensor, "samples token d_in"]:
        """Pushes that are zero at all tokens but these; there, random signs of latents that fire."""
        atoms = step.dictionary.W_dec
        pushes = atoms.new_zeros(self.samples, len(active.sequences), step.dictionary.d_in)
        for token in tokens:
            together = active.sampled_at(token, self.most, step.rng)
            signs = random_signs(self.samples, len(together), step.rng).to(atoms)
            pushes[:, token] = radius / len(together) ** 0.5 * signs @ step.directions(atoms.index_select(0, together))
        return pushes


def one_a_sequence(active: Firing, rng: torch.Generator) -> Int[Tensor, " seq"]:
    """A random token of each sequence at which two latents or more fire; none of a sequence without."""
    found = active.together(2)
    found = drawn(found, len(found), rng)
    _, inverse = active.sequences[found].unique(return_inverse=True)
    places = torch.arange(len(found), device=found.device)
    first = places.new_zeros(int(inverse.max()) + 1 if len(found) else 0)
    return found[first.scatter_reduce(0, inverse, places, "amin", include_self=False)]


def by_sequence(per_token: Float[Tensor, " token"], sequences: Int[Tensor, " token"]) -> Float[Tensor, " seq"]:
    return per_token.new_zeros(int(sequences.max()) + 1).index_add(0, sequences, per_token)
