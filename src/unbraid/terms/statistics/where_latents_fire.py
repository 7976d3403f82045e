"""The tokens at which latents fire in a step's contexts: an atom's effect elsewhere is not its latent's effect.

Contexts hold raw activations; the dictionary reads normalised ones. They are encoded once a step, for all its terms.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unbraid.objective.objective import Step
from unbraid.system.devices import sent


@dataclass(frozen=True)
class Firing:
    """The active (token, latent) pairs of living latents, token by token."""

    tokens: Int[Tensor, " nnz"]
    """Index among the kept tokens of the contexts."""
    latents: Int[Tensor, " nnz"]
    sequences: Int[Tensor, " token"]
    """Of every kept token, the sequence it is in."""

    def sampled(self, count: int, rng: torch.Generator) -> Int[Tensor, " k"]:
        """`count` latents that fire here, or all that do."""
        return drawn(self.latents.unique(), count, rng)

    def where(self, latents: Int[Tensor, " k"]) -> Bool[Tensor, "k token"]:
        """The tokens at which each of these latents fires."""
        here = latents.unsqueeze(1) == self.latents
        tokens = here.new_zeros(len(latents), len(self.sequences), dtype=torch.long)
        return tokens.index_add(1, self.tokens, here.long()) > 0

    def together(self, fewest: int) -> Int[Tensor, " token"]:
        """The tokens at which at least `fewest` latents fire."""
        return (torch.bincount(self.tokens, minlength=len(self.sequences)) >= fewest).nonzero().squeeze(1)

    def sampled_at(self, token: Tensor, most: int, rng: torch.Generator) -> Int[Tensor, " k"]:
        """At most so many of the latents that fire at a token."""
        return drawn(self.latents[self.tokens == token], most, rng)


def drawn(items: Int[Tensor, " item"], count: int, rng: torch.Generator) -> Int[Tensor, " k"]:
    return items[sent(torch.randperm(len(items), generator=rng)[:count], items.device)]


@torch.no_grad()
def firing(step: Step) -> Firing:
    """The tokens of the step's contexts at which living latents fire."""
    if "firing" not in step.shared:
        contexts = step.contexts()
        x = step.normalise(contexts.acts[contexts.mask].to(step.x))
        _, tokens, latents = step.dictionary.unchecked_codes(x).entries()
        living = ~step.dead[latents]
        sequences = contexts.mask.nonzero()[:, 0].to(x.device)
        step.shared["firing"] = Firing(tokens[living], latents[living], sequences)
    return step.shared["firing"]
