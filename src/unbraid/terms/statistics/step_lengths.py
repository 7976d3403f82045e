"""The lengths of latents' pushes by a budget of next-token KL, followed from use to use as atoms turn.

    l_j <- l_j sqrt(budget / KL_j), at most doubled or halved at once;      share_j = sqrt(budget / KL_j),  KL_j at l_j

No length exceeds the radius: see `steering.push_length`. KL is measured once a use, at the tokens that are kept. An
effect times its share is what it would be at the budget if it grew with the length and KL with its square; its gradient
is that of the effect per unit of sqrt(KL).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.effects.next_token_kl import next_token_kl
from unbraid.objective.objective import Step
from unbraid.sources.base import Predictions

LENGTHS = "lengths"
"""The name under which a term that uses this remembers its latents' lengths: list it in `per_latent`."""
SHARES = (0.1, 10.0)
"""Where a share ends: KL that is a hundredth or a hundred times of the budget says little of what is at the budget."""


def lengths_of(step: Step, latents: Int[Tensor, " k"], radius: float) -> Float[Tensor, "k 1"]:
    """Return the lengths remembered for these latents; `radius` for one that was never pushed."""
    if LENGTHS not in step.memory:
        step.memory[LENGTHS] = step.dictionary.W_dec.new_zeros(step.dictionary.d_sae)
    known = step.memory[LENGTHS][latents]
    return torch.where(known > 0, known, radius).unsqueeze(1)


def shares_of(
    step: Step, latents: Int[Tensor, " k"], pushes: Float[Tensor, "k d_in"], budget: float, longest: float
) -> Float[Tensor, " k"]:
    """Return each push's share, differentiable, and remember the lengths of the next use, up to `longest`.

    Raises ValueError for contexts that predict no tokens.
    """
    contexts = step.contexts()
    cost = next_token_kl([Predictions.of(contexts)], pushes)
    shares = (budget / cost.clamp_min(torch.finfo(cost.dtype).tiny)).sqrt()
    with torch.no_grad():
        longer = pushes.norm(dim=1) * shares.clamp(0.5, 2.0)
        lengths = step.memory[LENGTHS].clone()
        lengths[latents] = longer.clamp_max(longest).to(lengths)
        step.memory[LENGTHS] = lengths
    return shares.clamp(*SHARES)
