"""Continuations of one text, given as its tokens: what a model expects and writes when a push is added to its
activations."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.effects.coherence import perplexity
from unbraid.sources.base import Predictions
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import predictions_of
from unbraid.steering.writing import write

Pushes = Float[Tensor, "k d_in"]
Words = Sequence[str]
"""A text as its tokens."""


@torch.no_grad()
def expectations(source: LanguageModel, texts: Sequence[Words], pushes: Pushes) -> Float[Tensor, "k vocabulary"]:
    """Return the probabilities of the next token after each text, with its push (embeddings are often padded past the
    tokenizer's last id). The texts are equally long.

    Raises ValueError where they are not finite.
    """
    windows = source.whole(texts)
    acts = source.activations(windows)
    mask = windows.keep & (acts.norm(dim=-1) <= source.max_norm)
    shift = pushes.to(acts).unsqueeze(1) * mask.unsqueeze(-1)
    logits = source.logits_from(windows, acts + shift)[:, -1, : len(source.loaded_tokenizer)]
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"what the model expects is not finite after a push of {float(pushes.norm(dim=1).max()):.3g}; take a "
            "smaller --scale"
        )
    return logits.softmax(-1).cpu()


def written(source: LanguageModel, words: Words, pushes: Pushes, tokens: int) -> list[list[str]]:
    """Return for each push the tokens of the most probable continuation, up to a special token or the end of the
    context."""
    windows = source.whole([words])
    prompt = windows.ids[0][windows.attention[0]].tolist()
    room = source.context - len(words) - 1
    texts = write(source, [prompt], pushes, min(tokens, room))
    ids = (text[new].tolist() for text, new in zip(texts.ids[:, 0], texts.written()[:, 0], strict=True))
    return [source.loaded_tokenizer.convert_ids_to_tokens(one) for one in ids]


def as_text(source: LanguageModel, added: Words) -> str:
    """Return tokens as text."""
    return source.loaded_tokenizer.convert_tokens_to_string(list(added)) if added else ""


def expected_along(source: LanguageModel, words: Words, added: Words) -> list[Predictions]:
    """Return what the model expects at every step of writing `added` after `words`, and once it is written."""
    windows = source.whole([[*words, *added]])
    counted = windows.attention.clone()
    counted[:, : -(len(added) + 1)] = False
    return predictions_of(source, windows, counted)


@torch.no_grad()
def perplexities(source: LanguageModel, words: Words, added: Sequence[Words]) -> list[float]:
    """Return the perplexity of each continuation to the model that is not pushed; NaN for one without a token."""
    found = []
    for one in added:
        windows = source.whole([[*words, *one]])
        new = windows.attention.clone()
        new[:, : new.shape[1] - len(one)] = False
        found.append(float(perplexity(source.logits(windows), windows.ids.long(), new)))
    return found
