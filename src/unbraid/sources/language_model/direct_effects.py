"""The direct effect of a direction on the next token: what it does to the logits past all blocks after it.

    logits(h + R d) - logits(h),   less the mean over the vocabulary

h is the mean output of the last block over held-out tokens, of their usual norm, and R a tenth of that norm; the
final norm and the unembedding are the model's own. What the blocks in between make of the direction is left out.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from unbraid.sources.base import NextTokens
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.hooks import forward, logits_of, read
from unbraid.sources.language_model.probe import random_tokens
from unbraid.sources.language_model.sites import hook_point
from unbraid.sources.language_model.skipping import skipped
from unbraid.sources.text.windows import Windows

PUSH = 0.1
"""Length of a push, as a share of the usual norm of the last block's output."""
LOGITS_AT_ONCE = 2**24
"""64 MB of them."""


@torch.no_grad()
def direct_effects(
    model: nn.Module, tokenizer: Any, windows: Windows, directions: Float[Tensor, "direction d_in"], count: int
) -> NextTokens:
    """Return the `count` next tokens that each direction promotes most, and suppresses most."""
    last = len(blocks(model)[1]) - 1
    left = read(model, hook_point(model, last, "resid_post"), windows.ids, windows.attention)[windows.keep].float()
    usual = left.norm(dim=1).median()
    state = usual * normalize(left.mean(0, keepdim=True))
    size = len(tokenizer)  # embeddings are often padded past the tokenizer's last id
    clean = logits_after(model, last, state)[:, :size]
    count, step = min(count, clean.shape[1]), max(1, LOGITS_AT_ONCE // clean.shape[1])
    found: list[tuple[Tensor, ...]] = []
    for part in directions.float().split(step):
        change = logits_after(model, last, state + PUSH * usual * normalize(part))[:, :size] - clean
        change -= change.mean(1, keepdim=True)
        up, down = change.topk(count, dim=1), change.topk(count, dim=1, largest=False)
        found.append((up.indices, up.values, down.indices, down.values))
    up, up_by, down, down_by = (torch.cat(part).cpu() for part in zip(*found, strict=True))
    text = {i: tokenizer.decode([i]) for i in torch.cat([up, down]).unique().tolist()}
    texts = lambda ids: [[text[i] for i in row] for row in ids.tolist()]
    return NextTokens(texts(up), up_by, texts(down), down_by)


def logits_after(model: nn.Module, last: int, states: Float[Tensor, "n d_in"]) -> Float[Tensor, "n vocabulary"]:
    """Return the logits where the output of block `last`, the last one, is each of these."""
    ids, attention = random_tokens(model, sequences=-(-len(states) // random_tokens(model)[0].shape[1]))
    whole = pad(states, (0, 0, 0, ids.numel() - len(states))).view(*ids.shape, -1)
    with skipped(model, last, "resid_post"), hook_point(model, last, "resid_post").hooked(lambda h: whole.to(h.dtype)):
        return logits_of(forward(model, ids, attention)).flatten(0, 1)[: len(states)].float()
