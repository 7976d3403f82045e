"""Greedy continuations of a language model with a push at its activations, and their perplexity to the unpushed model.

transformers' own `generate`, so with its cache of keys and values; every token written is pushed, as is every token of
the prompt that the token policy keeps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from unbraid.effects.coherence import perplexity
from unbraid.sources.language_model.blocks import vocabulary_of
from unbraid.sources.language_model.hooks import forward, logits_of
from unbraid.sources.language_model.language_model import LanguageModel

GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}
"""The most probable token at each step, whatever a model's own settings for writing say."""
TEXTS_AT_ONCE = 32
"""Texts in one pass: their logits are 200 MB where 32 texts of 64 tokens are read with 25,000 words."""


class Written(NamedTuple):
    """Prompts with what was written after them, padded in front, a row for each push and prompt."""

    ids: Int[Tensor, "*text pos"]
    attention: Bool[Tensor, "*text pos"]
    """False on padding, and after the end of a text."""
    begins: int
    """The first position that was written."""

    def written(self) -> Bool[Tensor, "*text pos"]:
        """Return where tokens were written."""
        positions = torch.arange(self.ids.shape[-1], device=self.ids.device)
        return self.attention & (positions >= self.begins)


@torch.no_grad()
def write(
    model: LanguageModel, prompts: Sequence[Sequence[int]], pushes: Float[Tensor, "push d_in"], tokens: int
) -> Written:
    """Return the greedy continuations of prompts (token ids) of at most `tokens` tokens, once for each push.

    Raises ValueError for a model that cannot write.
    """
    network: Any = model._model
    if not hasattr(network, "generate"):
        raise ValueError(f"a {type(network).__name__} has no `generate`; use a model that transformers can write with")
    longest = max(map(len, prompts))
    ids = torch.stack([pad(torch.tensor(list(prompt)), (longest - len(prompt), 0)) for prompt in prompts])
    there = torch.stack([torch.arange(longest) >= longest - len(prompt) for prompt in prompts])
    kept = there & model._reader.kept(ids)
    limit = model.max_norm  # needs forward passes of its own, so not inside the hook
    device = next(network.parameters()).device
    # Embeddings are often padded past the tokenizer's last id.
    nameless = list(range(len(model.loaded_tokenizer), vocabulary_of(network)))
    rows = [(push, prompt) for push in range(len(pushes)) for prompt in range(len(prompts))]
    parts = []
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        which_push, which = (torch.tensor(column) for column in zip(*rows[start : start + TEXTS_AT_ONCE], strict=True))
        own, where = pushes[which_push].to(device)[:, None, :], kept[which].to(device).unsqueeze(-1)

        def pushed(hidden: Tensor, own: Tensor = own, where: Tensor = where) -> Tensor:
            looked = where if hidden.shape[1] == where.shape[1] else torch.ones_like(where[:, :1])
            usual = looked & (hidden.float().norm(dim=-1, keepdim=True) <= limit)
            return hidden + (usual * own).to(hidden)

        with model._hook_point.hooked(pushed):
            found = network.generate(
                ids[which].to(device), attention_mask=there[which].long().to(device), max_new_tokens=tokens,
                pad_token_id=ends(model)[0], eos_token_id=ends(model), suppress_tokens=nameless or None, **GREEDY,
            )  # fmt: skip
        parts.append(pad(found, (0, longest + tokens - found.shape[1]), value=ends(model)[0]).cpu())
    texts = torch.cat(parts).view(len(pushes), len(prompts), -1)
    ended = torch.isin(texts[..., longest:], torch.tensor(ends(model))).cumsum(-1) > 0
    return Written(texts, torch.cat([there.expand(*texts.shape[:2], -1), ~ended], -1), longest)


def ends(model: LanguageModel) -> list[int]:
    """Return the special tokens, any of which ends a text."""
    return model._reader.special


@torch.no_grad()
def perplexities(model: LanguageModel, texts: Written) -> Float[Tensor, "push prompt"]:
    """Return the perplexity to the unpushed model of what was written; NaN where that is nothing."""
    rows = Written(texts.ids.flatten(0, 1), texts.attention.flatten(0, 1), texts.begins)
    device, found = next(model._model.parameters()).device, []
    for start in range(0, len(rows.ids), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        ids, there, written = (each[part].to(device) for each in (rows.ids, rows.attention, rows.written()))
        found.append(perplexity(logits_of(forward(model._model, ids, there)), ids, written).cpu())
    return torch.cat(found).view(texts.ids.shape[:2])
