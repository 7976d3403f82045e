"""What latents do downstream should add up: a causal decoder beside the decoder, trained along, predicts joint effects.

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

from unbraid.causal.calibration import random_units, step_radius
from unbraid.causal.effect import pooled_effect
from unbraid.causal.firing import Firing, firing
from unbraid.causal.singles import singles
from unbraid.objective import Reads, Step, Term, TermOutput
from unbraid.source import Contexts

Heads = Float[Tensor, "k projected"]


class Draws(NamedTuple):
    """What is pushed together."""

    latents: Int[Tensor, " k"]
    sizes: Float[Tensor, "draw k"]
    """c, 0 for latents that a draw leaves alone."""


@dataclass(frozen=True, kw_only=True)
class CausalHead(Term):
    start: float = 0.2
    every: int = 8
    draws: int = 8
    """Sets of latents pushed each time."""
    most: int = 4
    """Latents pushed together, at most."""
    projection: int = 64
    """Dimensions in which effects are compared."""
    response: Literal["exponential", "linear"] = "exponential"
    """How effects are taken to grow with c."""
    rate: float = 0.5
    """Share of its error that the head corrects each time; a latent seen seldom, more."""
    decoder_every: int = 4
    """Atoms feel it on every n-th use, n times as strongly; the head learns on every one."""
    floor: float = 0.1
    """Smallest denominator, as a share of what it is for random directions of size R."""
    decay: float = 0.9
    """Of the moving average in the denominator."""
    radius: float = 0.0
    """R, in raw units; 0 calibrates it at the first use."""
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "decoder")

    def __call__(self, step: Step) -> TermOutput:
        draws = self._draws(firing(step), step.rng)
        if not len(draws.latents):
            return TermOutput(step.x.new_zeros(()))
        memory, contexts, atoms = step.memory, step.contexts(), step.dictionary.W_dec
        radius = step_radius(step, self.radius)
        if "heads" not in memory:
            memory |= self._fresh(contexts, atoms, radius, step.rng)
        felt = int(memory["uses"]) % self.decoder_every == 0
        memory["uses"] = memory["uses"] + 1
        with torch.set_grad_enabled(felt):
            pushes = radius * draws.sizes.to(atoms) @ atoms.index_select(0, draws.latents)
            effects = pooled_effect(contexts, pushes) @ memory["projection"].T
            draws, effects = with_singles(draws, effects, step, radius)
        response = self._response(draws.sizes).to(effects)
        # Charged before they are learned, else the head would have fitted what it is asked to predict; but a latent
        # never seen before would be charged for all it does.
        fresh = ((response != 0) & (memory["seen"][draws.latents] == 0)).any(1)
        learn(memory, draws.latents, response[fresh], effects.detach()[fresh], self.rate)
        missed = (effects - response @ memory["heads"][draws.latents]).square().sum(1).mean()
        learn(memory, draws.latents, response[~fresh], effects.detach()[~fresh], self.rate)
        loss = missed / self._denominator(memory, effects.detach())
        charged = loss.detach() + self.decoder_every * (loss - loss.detach())
        return TermOutput(charged, {"effect": effects.detach().square().sum(1).mean().sqrt() / radius})

    def _draws(self, active: Firing, rng: torch.Generator) -> Draws:
        """Sets that fire together; sizes in units of R."""
        tokens = active.together(1)
        if not len(tokens):
            return Draws(tokens, torch.zeros(0, 0))
        chosen = tokens[torch.randint(len(tokens), (self.draws,), generator=rng).to(tokens.device)]
        counts = torch.randint(1, self.most + 1, (self.draws,), generator=rng).tolist()
        sets = [active.sampled_at(token, count, rng) for token, count in zip(chosen, counts, strict=True)]
        latents, places = torch.cat(sets).unique(return_inverse=True)
        rows = torch.repeat_interleave(torch.arange(self.draws), torch.tensor([len(part) for part in sets]))
        sizes = 1 - torch.rand(len(rows), generator=rng, dtype=torch.float64)
        table = torch.zeros(self.draws, len(latents), dtype=torch.float64)
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
        uses = torch.zeros((), dtype=torch.long)
        return {"projection": projection, "usual": floor, "heads": heads, "seen": seen, "uses": uses}

    def _denominator(self, memory: dict[str, Tensor], effects: Float[Tensor, "draw projected"]) -> Tensor:
        now = effects.square().sum(1).mean()
        memory["average"] = self.decay * memory.get("average", now) + (1 - self.decay) * now
        least = (self.floor * memory["usual"]).clamp_min(torch.finfo(now.dtype).tiny)
        return memory["average"].maximum(least)


def with_singles(draws: Draws, effects: Tensor, step: Step, radius: float) -> tuple[Draws, Tensor]:
    """Draws of one latent at R besides, where another term of this step has measured some."""
    found = singles(step, radius)
    if found is None:
        return draws, effects
    latents, places = torch.cat([draws.latents, found.latents]).unique(return_inverse=True)
    sizes = draws.sizes.new_zeros(len(effects) + len(found.latents), len(latents))
    sizes[: len(effects), places[: len(draws.latents)]] = draws.sizes
    sizes[torch.arange(len(effects), len(sizes)), places[len(draws.latents) :]] = 1.0
    return Draws(latents, sizes), torch.cat([effects, found.effects @ step.memory["projection"].T])


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
