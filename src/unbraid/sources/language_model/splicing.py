"""Held-out windows whose activations are replaced, and what a language model predicts there."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.sources.base import Source, few_rows
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.text.windows import Windows
from unbraid.system.sharing import shared

WINDOWS = 64
"""Held-out windows spliced where it is done many times for one score."""
TOKENS = 16_384
"""Predicted tokens that losses are taken over; fewer when the eval split holds no more."""
POSITIONS = 1024
"""Positions in one forward pass: logits are wide."""


def lacks_windows(source: Source) -> str:
    """Return what a source lacks for evals that read held-out rows and splice text; empty when nothing."""
    if source.predicting("eval") < 1:
        rows, windows = source.available("eval"), source.sequences("eval")
        return (
            f"the eval split holds {rows:,.0f} tokens in {windows:,.0f} windows, none with a next token to predict; "
            f"{source.more_held_out}"
        )
    return few_rows(source)


@dataclass(frozen=True, eq=False)
class Pass:
    """Windows of one forward pass, without their padding, and the activations there."""

    windows: Windows
    acts: Float[Tensor, "seq pos d_in"]
    seen: Bool[Tensor, "seq pos"]
    """True on the tokens a dictionary is trained on."""

    @property
    def rows(self) -> Float[Tensor, "row d_in"]:
        """The activations that a dictionary sees."""
        return self.acts[self.seen]

    def predicted(
        self, model: LanguageModel, rows: Float[Tensor, "row d_in"]
    ) -> tuple[Float[Tensor, "token vocabulary"], Int[Tensor, " token"]]:
        """Return `predicted`, with other activations in place of those that a dictionary sees."""
        put = self.acts.index_put((self.seen,), rows.to(self.acts))
        return predicted(self.windows, model.logits_from(self.windows, put))


@shared
@torch.no_grad()
def passes(model: LanguageModel, windows: Windows) -> tuple[Pass, ...]:
    """Return forward passes over these windows, as many at a time as one pass should hold."""
    found = []
    for _, part in windows.by_length(POSITIONS):
        acts = model.activations(part)
        found.append(Pass(part, acts, part.keep & (acts.norm(dim=-1) <= model.max_norm)))
    return tuple(found)


@lru_cache(maxsize=2)
def eval_windows(model: LanguageModel) -> Windows:
    """Return a few held-out windows, the same for every run of a source."""
    count = max(1, min(WINDOWS, int(min(model.available("eval"), 1e9) // model.context)))
    return model.windows(count, split="eval", seed=0)


@lru_cache(maxsize=2)
def scored_windows(model: LanguageModel, tokens: int = TOKENS) -> Windows:
    """Return held-out windows with `tokens` predicted tokens, or all there are: the same for every run of a source."""
    there = int(model.sequences("eval"))
    count = min(there, math.ceil(tokens / model.context))
    while True:
        windows = model.windows(max(1, count), split="eval", seed=0)
        running = counted(windows).sum(1).cumsum(0)
        if count >= there or int(running[-1]) >= tokens:
            return windows[: int((running < tokens).sum()) + 1]
        count = min(there, 2 * count)


def counted(windows: Windows) -> Bool[Tensor, "seq pos"]:
    """Return a mask of the positions whose token a dictionary sees and whose next token is predicted."""
    return windows.keep[:, :-1] & windows.attention[:, 1:]


def predicted(windows: Windows, logits: Tensor) -> tuple[Float[Tensor, "token vocabulary"], Int[Tensor, " token"]]:
    """Return log-probabilities and true next tokens, where a dictionary sees the token predicted from."""
    chosen = counted(windows)
    return logits[:, :-1][chosen].double().log_softmax(-1), windows.ids[:, 1:][chosen]
