"""The coherence of a continuation: its perplexity to the model that was not pushed.

    perplexity = exp( - mean over the continuation's tokens of log p(token | what is before it) )
    strangeness = perplexity of what the pushed model wrote / perplexity of what the model itself wrote, on like prompts

p: the unpushed model. A model that was broken writes what it would not expect, and a model that only talks of other
things writes what it would, once begun.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

BROKEN = 3.0
"""Strangeness above which a push is said to break the model."""


def perplexity(
    logits: Float[Tensor, "*text pos vocabulary"], ids: Int[Tensor, "*text pos"], written: Bool[Tensor, "*text pos"]
) -> Float[Tensor, "*text"]:
    """Return the perplexity of the tokens that are `written`, given all before them; NaN where there is none.

    `logits`: those at each position for the next one. The first token of a text has nothing before it, so it cannot
    be one that was written.
    """
    if bool(written[..., 0].any()):
        raise ValueError(
            "the first token of a text is marked as written, and nothing comes before it to expect it from"
        )
    expected = logits[..., :-1, :].double().log_softmax(-1).gather(-1, ids[..., 1:].unsqueeze(-1)).squeeze(-1)
    counted = written[..., 1:]
    return (-(expected * counted).sum(-1) / counted.sum(-1)).exp()


def broken(pushed: Float[Tensor, "*text"], own: Float[Tensor, "*text"]) -> Bool[Tensor, "*text"]:
    """Return which continuations of a pushed model are strange to the model itself, next to its own of like prompts."""
    return pushed > BROKEN * own
