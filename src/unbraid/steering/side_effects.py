"""Side effects of a push: what it does to text in which its concept does not occur.

    loss = mean over tokens of -log q(next token),    KL = mean over tokens of KL(p || q),    q: pushed, p: not

Text without the concept: held-out windows in which none of the pushed latents fires, and none of the words that were
looked for occurs. A push that is all its own would change little there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import nll_loss

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.effects.next_token_kl import divergence
from unbraid.sources.base import NoHeldOut
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import predictions_of
from unbraid.sources.text.windows import Windows

WINDOWS = 16
"""Windows looked at."""
ENOUGH = 4
"""Windows without the concept that are measured, at most: each is a forward pass of whole length, twice."""


class SideEffects(NamedTuple):
    """The change that a push makes to other text."""

    tokens: int
    """Number of predictions measured."""
    loss: float
    """Of the model that is not pushed, in nats a token."""
    pushed_loss: float
    kl: float
    note: str
    """What the text is, where it is not held-out text without the concept."""


@torch.no_grad()
def side_effects(
    source: LanguageModel, dictionary: Dictionary, latents: Sequence[int], push: Float[Tensor, " d_in"],
    words: Sequence[int] = (),
) -> SideEffects:  # fmt: skip
    """Measure what a push does to text without its concept. `words`: tokens that must not occur there."""
    windows, note = other_text(source)
    free = without(source, dictionary, windows, latents, words)
    if not bool(free.any()):
        note += "; the concept is in every window of it, so it is measured with the concept"
        free = torch.ones_like(free)
    chosen = windows[free.nonzero().flatten()[:ENOUGH]]
    return measured(source, chosen, push, note.removeprefix("; "))


def other_text(source: LanguageModel) -> tuple[Windows, str]:
    """Return windows of held-out text, or of the text of the run where it has no other, and a note if so."""
    try:
        there = int(min(WINDOWS, source.sequences("eval")))
        return source.windows(max(1, there), split="eval", seed=0), ""
    except NoHeldOut:
        there = int(min(WINDOWS, source.sequences("train")))
        return source.windows(max(1, there), split="train", seed=0), "the text the run was made from"


def without(
    source: LanguageModel, dictionary: Dictionary, windows: Windows, latents: Sequence[int], words: Sequence[int]
) -> Bool[Tensor, " seq"]:
    """Return in which windows no latent fires and no word occurs."""
    found = []
    for part in windows.parts(source.batch):
        acts = source.activations(part)
        codes = moved(dictionary, acts.device).encode(acts.flatten(0, 1))[:, list(latents)].ne(0).any(1)
        occurs = torch.isin(part.ids, torch.tensor(list(words), dtype=part.ids.dtype, device=part.ids.device))
        found.append(~((codes.view(part.ids.shape) | occurs) & part.keep).any(1))
    return torch.cat(found)


def measured(source: LanguageModel, windows: Windows, push: Float[Tensor, " d_in"], note: str) -> SideEffects:
    """Measure loss and KL in these windows, wherever a next token is known."""
    known = windows.keep.clone()
    known[:, -1] = False
    known[:, :-1] &= windows.attention[:, 1:]
    before = after = kl = 0.0
    count = 0
    for which, part in windows.by_length(0):
        for one in range(len(part)):
            counted = known[which[one : one + 1]][:, : part.ids.shape[1]]
            if not bool(counted.any()):
                continue
            (text,) = predictions_of(source, part[one : one + 1], counted)
            pushed = text.pushed_logits(push.unsqueeze(0))[0]
            targets = part.ids[one, 1:][counted[0, :-1]].long()
            before += float(nll_loss(text.clean, targets, reduction="sum"))
            after += float(nll_loss(pushed.log_softmax(-1), targets, reduction="sum"))
            kl += float(divergence(text.clean, pushed).sum())
            count += len(targets)
    if not count:
        return SideEffects(0, math.nan, math.nan, math.nan, "no window holds two tokens in a row")
    return SideEffects(count, before / count, after / count, kl / count, note)
