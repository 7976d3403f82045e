"""The next tokens that a language model expects, as a function of its activations at a site."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.sources.base import Predictions, Source, Split
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.text.windows import Windows

POSITIONS = 1024
"""Positions of the windows that are read together: logits are wide."""


def predictions(source: Source, count: int, *, split: Split, seed: int) -> list[Predictions]:
    """Return what a language model expects after the kept tokens of `count` windows chosen by `seed`, or of all where
    there are fewer; a few windows at a time. Raises ValueError for a source without next tokens."""
    if not isinstance(source, LanguageModel):
        raise ValueError(f"a {type(source).__name__} predicts no tokens; use a LanguageModel")
    there = int(max(1, min(count, source.sequences(split))))
    return predictions_of(source, source.windows(there, split=split, seed=seed))


@torch.no_grad()
def predictions_of(
    model: LanguageModel, windows: Windows, counted: Bool[Tensor, "seq pos"] | None = None
) -> list[Predictions]:
    """Return predictions after the kept tokens of windows, or after those of `counted`; windows of like length
    together, without their padding."""
    return [
        one_pass(model, part, None if counted is None else counted[which][:, : part.ids.shape[1]])
        for which, part in windows.by_length(POSITIONS)
    ]


def one_pass(model: LanguageModel, windows: Windows, counted: Bool[Tensor, "seq pos"] | None) -> Predictions:
    """Return the predictions after windows that are read together."""
    acts = model.activations(windows)
    mask = windows.keep & (acts.norm(dim=-1) <= model.max_norm)
    looked = mask if counted is None else counted

    def logits(put: Float[Tensor, "*fold seq pos d_in"]) -> Float[Tensor, "*fold token vocabulary"]:
        found = model.logits_from(windows.repeated(put.shape[:-3].numel()), put.reshape(-1, *put.shape[-2:]))
        return found.view(*put.shape[:-1], -1)[..., looked, :]

    return Predictions(acts, mask, logits(acts).log_softmax(-1), logits)
