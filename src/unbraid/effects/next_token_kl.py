"""The next-token KL of a push: how far it moves what a language model expects, in nats.

KL(v) = mean over tokens t of sum_w p_t(w) log( p_t(w) / q_t(w) ),
p: predictions for x,   q: for x + v at every kept token
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.base import Predictions

POSITIONS = 1024
"""Positions in one forward pass: logits are wide."""


def divergence(
    clean: Float[Tensor, "token vocabulary"], logits: Float[Tensor, "*k token vocabulary"]
) -> Float[Tensor, "*k token"]:
    """Return KL(clean || pushed) of each token. `clean`: log-probabilities; `logits`: of the pushed, not normalised."""
    return torch.nn.functional.kl_div(logits.log_softmax(-1), clean, reduction="none", log_target=True).sum(-1)


def next_token_kl(
    texts: Sequence[Predictions], directions: Float[Tensor, "k d_in"], positions: int = POSITIONS
) -> Float[Tensor, " k"]:
    """Return the mean KL of each push over the tokens of all texts; differentiable.

    Raises ValueError when there is no token.
    """
    count = sum(len(text.clean) for text in texts)
    if not count:
        raise ValueError("no token of these texts is kept, so no prediction can be compared; loosen the token policy")
    total = directions.new_zeros(len(directions))
    for text in texts:
        copies = max(1, positions // text.mask.numel())
        parts = [text.pushed_logits(part) for part in directions.split(copies)]
        total = total + torch.cat([divergence(text.clean, part).sum(-1) for part in parts]).to(total)
    return total / count
