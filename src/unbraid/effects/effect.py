"""The effect of directions on downstream layers, pooled or token by token, as MELBO, DCT and the effect terms use it.

    Delta(theta) = mean over contexts and kept tokens of G(X + theta) - Y,   theta added at every kept token

Where the slice G keeps the width, theta also travels straight along the residual stream, and the skip path is removed:
Delta°(theta) = Delta(theta) - theta. Unlike in the released DCT code, padding is neither perturbed nor averaged over.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.sources.base import Contexts

COPIES = 16
"""Perturbed copies of the contexts run in one forward pass."""


def pooled_effect(
    contexts: Contexts,
    directions: Float[Tensor, "k d_in"],
    copies: int = COPIES,
    *,
    targets: Bool[Tensor, "seq pos"] | None = None,
    keep_skip: bool = False,
) -> Float[Tensor, "k d_out"]:
    """Return Delta° of each direction, differentiable. Copies of the contexts are folded into the batch, `copies` at a
    time.

    `targets`: the kept tokens it is the mean over, all by default. `keep_skip`: leave theta in. Raises ValueError when
    the contexts keep no token.
    """
    looked = contexts.mask if targets is None else targets
    count = int(looked.sum())
    if not count:
        raise no_token_kept()
    acts, kept = contexts.acts, contexts.mask.unsqueeze(-1)

    def pooled(part: Float[Tensor, "some 1 1 d_in"]) -> Float[Tensor, "some d_out"]:
        moved = (contexts.downstream(acts + kept * part) - contexts.base).to(directions)
        return (moved * looked.unsqueeze(-1).to(directions)).sum((1, 2)) / count

    shifts = directions.to(acts.device, acts.dtype)[:, None, None, :]
    effects = torch.cat([pooled(part) for part in shifts.split(copies)])
    return effects - directions if effects.shape[1] == directions.shape[1] and not keep_skip else effects


def no_token_kept() -> ValueError:
    """Return the error for contexts of which the token policy keeps nothing."""
    return ValueError("no token of these contexts is kept, so nothing can be perturbed; loosen the token policy")


def token_effects(
    contexts: Contexts, pushes: Float[Tensor, "k token d_in"], copies: int = COPIES
) -> Float[Tensor, "k token d_out"]:
    """Return Delta° at every kept token, each with its own push; differentiable. For equal pushes the
    mean over tokens is the pooled effect."""
    acts, mask = contexts.acts, contexts.mask

    def moved(part: Float[Tensor, "some token d_in"]) -> Float[Tensor, "some token d_out"]:
        shift = acts.new_zeros(len(part), *acts.shape)
        shift[:, mask] = part.to(acts)
        return (contexts.downstream(acts + shift) - contexts.base)[:, mask]

    effects = torch.cat([moved(part) for part in pushes.split(copies)]).to(pushes)
    return effects - pushes if effects.shape[2] == pushes.shape[2] else effects


def everywhere(directions: Float[Tensor, "k d_in"], contexts: Contexts) -> Float[Tensor, "k token d_in"]:
    """Return the same push at every kept token."""
    return directions.unsqueeze(1).expand(-1, int(contexts.mask.sum()), -1)
