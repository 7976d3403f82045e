"""Latents' downstream effects should add up: a causal decoder, trained next to the decoder, predicts joint effects.

    mean |P E(sum_j c_j d_j) - sum_j phi(c_j) u_j|^2 / max( |P E|^2, floor |P E(random)|^2 )

phi(c) = expm1(c / R) / (e - 1), or c / R. E is the pooled Delta°, P a fixed random projection; up to four living
latents that fire at one token are pushed together, at c_j uniform in (0, R]. The u learn by normalised least mean
squares: a step moves the rows of the pushed latents alone, where Adam's moments would go on moving all. |P E|^2 is a
moving average. Atoms that do nothing add up, and so do copies of one direction along which the slice is linear: `floor`
ends the pull towards the first, but only `effect` keeps atoms from either. What u averages over contexts looks like
interaction: see `context_ceiling` in the eval controllability. Put after `effect`, it learns from what that measures.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveInt, ShareAboveZero, ShareBelowOne
from unbraid.effects.effect import pooled_effect
from unbraid.effects.radius import random_units
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput
from unbraid.sources.base import Contexts
from unbraid.system.devices import sent
from unbraid.terms.statistics.moving_average import move
from unbraid.terms.statistics.single_effects import singles
from unbraid.terms.statistics.step_radius import step_radius
from unbraid.terms.statistics.where_latents_fire import Firing, firing


class Draws(NamedTuple):
    """Sets of latents that are pushed together."""

    latents: Int[Tensor, " k"]
    sizes: Float[Tensor, "draw k"]
    """c, 0 for latents that a draw leaves alone."""


@dataclass(frozen=True, kw_only=True)
class CausalHead(Term):
    """The penalty on effects that do not add up; the equations are in the docstring of this module."""

    start: float = 0.2
    every: int = 8
    draws: PositiveInt = 8
    """Sets of latents that are pushed and charged each time."""
    taught: NonNegativeInt = 8
    """Sets that the head alone learns from: they cost no backward pass."""
    most: PositiveInt = 4
    """Latents pushed together, at most."""
    projection: PositiveInt = 64
    """Dimensions in which effects are compared."""
    response: Literal["exponential", "linear"] = "exponential"
    """How effects are taken to grow with c."""
    rate: ShareAboveZero = 0.5
    """Share of its error that the head corrects each time; a latent seen seldom, more."""
    floor: NonNegativeFloat = 0.1
    """Smallest denominator, as a share of what it is for random directions of size R."""
    decay: ShareBelowOne = 0.9
    """Of the moving average in the denominator."""
    radius: NonNegativeFloat = 0.0
    """R, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")
    per_latent: ClassVar[tuple[str, ...]] = ("heads", "seen")
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def only_in_training(self) -> str:
        return "its causal decoder learns while the dictionary does and is not kept"

    def __call__(self, step: Step) -> TermOutput:
        draws = self._draws(firing(step), step.rng)
        if not len(draws.latents):
            return step.no_loss()
        memory, contexts, atoms = step.memory, step.contexts(), step.dictionary.W_dec
        radius = step_radius(step, self.radius)
        if "heads" not in memory:
            memory |= self._fresh(contexts, atoms, radius, step.rng)
        pushes = radius * draws.sizes.to(atoms) @ step.directions(atoms.index_select(0, draws.latents))
        with torch.no_grad():
            taught = pooled_effect(contexts, pushes[self.draws :]) if self.taught else pushes[:0]
        effects = pooled_effect(contexts, pushes[: self.draws]) @ memory["projection"].T
        response = self._response(draws.sizes).to(effects)
        own, rest = response[: self.draws], response[self.draws :]
        self._learn_singles(step, radius)
        if self.taught:
            learn(memory, draws.latents, rest, taught @ memory["projection"].T, self.rate)
        # Charged before they are learned, else the head would have fitted what it is asked to predict; but a latent
        # never seen before would be charged for all it does.
        fresh = ((own != 0) & (memory["seen"][draws.latents] == 0)).any(1)
        learn(memory, draws.latents, own[fresh], effects.detach()[fresh], self.rate)
        missed = (effects - own @ memory["heads"][draws.latents]).square().sum(1).mean()
        learn(memory, draws.latents, own[~fresh], effects.detach()[~fresh], self.rate)
        loss = missed / self._denominator(memory, effects.detach())
        return TermOutput(loss, {"effect": effects.detach().square().sum(1).mean().sqrt() / radius})

    def _learn_singles(self, step: Step, radius: float) -> None:
        """Learn from the effects of single latents that another term of this step has measured at R."""
        found = singles(step, radius)
        if found is not None:
            effects = found.effects.detach() @ step.memory["projection"].T
            learn(step.memory, found.latents, torch.eye(len(effects)).to(effects), effects, self.rate)

    def _draws(self, active: Firing, rng: torch.Generator) -> Draws:
        """Sets that fire together; sizes in units of R."""
        tokens = active.together(1)
        if not len(tokens):
            return Draws(tokens, torch.zeros(0, 0))
        many = self.draws + self.taught
        chosen = tokens[sent(torch.randint(len(tokens), (many,), generator=rng), tokens.device)]
        counts = torch.randint(1, self.most + 1, (many,), generator=rng).tolist()
        sets = [active.sampled_at(token, count, rng) for token, count in zip(chosen, counts, strict=True)]
        latents, places = torch.cat(sets).unique(return_inverse=True)
        rows = torch.repeat_interleave(torch.arange(many), torch.tensor([len(part) for part in sets]))
        sizes = 1 - torch.rand(len(rows), generator=rng)
        table = torch.zeros(many, len(latents))
        return Draws(latents, table.index_put((rows, places.cpu()), sizes).to(latents.device))

    def _response(self, sizes: Float[Tensor, "draw k"]) -> Float[Tensor, "draw k"]:
        return sizes if self.response == "linear" else torch.expm1(sizes) / torch.expm1(torch.ones(()))

    @torch.no_grad()
    def _fresh(self, contexts: Contexts, atoms: Tensor, radius: float, rng: torch.Generator) -> dict[str, Tensor]:
        usual = pooled_effect(contexts, radius * random_units(32, atoms.shape[1], rng).to(atoms))
        size = min(self.projection, usual.shape[1])
        projection = torch.randn(size, usual.shape[1], generator=rng).to(atoms) / size**0.5
        # Effects this far below the perturbation are rounding.
        floor = (usual @ projection.T).square().sum(1).mean().clamp_min(1e-8 * radius**2)
        heads = atoms.new_zeros(len(atoms), size)
        seen = torch.zeros(len(atoms), dtype=torch.long, device=atoms.device)
        return {"projection": projection, "usual": floor, "heads": heads, "seen": seen}

    def _denominator(self, memory: dict[str, Tensor], effects: Float[Tensor, "draw projected"]) -> Tensor:
        now = effects.square().sum(1).mean()
        least = (self.floor * memory["usual"]).clamp_min(torch.finfo(now.dtype).tiny)
        return move(memory, "average", now, self.decay).maximum(least)


@torch.no_grad()
def learn(
    memory: dict[str, Tensor], latents: Int[Tensor, " k"], response: Float[Tensor, "draw k"],
    effects: Float[Tensor, "draw projected"], rate: float,
) -> None:  # fmt: skip
    """A draw at a time: heads take their share of what is missing. The first times a latent is seen, of all of it."""
    heads, seen = memory["heads"].clone(), memory["seen"].clone()
    for row, effect in zip(response, effects, strict=True):
        pushed = latents[row != 0]
        phi = row[row != 0]
        missing = effect - phi @ heads[pushed]
        share = (1 / (1 + seen[pushed].to(phi))).clamp_min(rate) * phi / phi.square().sum()
        heads[pushed] += share.unsqueeze(1) * missing
        seen[pushed] += 1
    memory |= {"heads": heads, "seen": seen}
