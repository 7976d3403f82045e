"""The map from the output of a downstream layer to the logits of the next token, at a few tokens.

The blocks that are left run on whole windows; the final norm and the unembedding, which is wide, at those tokens alone.
"""

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakSet

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.direct_effects import logits_after
from unbraid.sources.language_model.downstream import DownstreamBlocks, capture, check_replay
from unbraid.sources.language_model.hooks import forward, logits_of
from unbraid.sources.text.windows import Windows

TRIED: WeakSet[nn.Module] = WeakSet()
"""Models whose final norm and unembedding, run on their own, were seen to give the model's logits."""


@dataclass(frozen=True, eq=False)
class NextTokenMap:
    """The rest of a model after block `layer`, for the windows it was made for."""

    model: nn.Module
    layer: int
    windows: Windows

    def __call__(
        self, left: Float[Tensor, "*fold seq pos d_out"], at: Bool[Tensor, "seq pos"]
    ) -> Float[Tensor, "*fold token vocab"]:
        """Return the logits at the tokens that `at` names. `left`: the output of block `layer`, of any copies."""
        return self._logits(left if self._rest is None else self._rest(left), at)

    def _logits(self, last: Tensor, at: Tensor) -> Tensor:
        states = last[..., at, :]
        logits = logits_after(self.model, self._end, states.reshape(-1, states.shape[-1]))
        return logits.view(*states.shape[:-1], -1).to(last)

    @property
    def _end(self) -> int:
        return len(blocks(self.model)[1]) - 1

    @cached_property
    def _rest(self) -> DownstreamBlocks | None:
        """The blocks after `layer`, None after the last."""
        ids, attention = self.windows.ids, self.windows.attention
        first = min(self.layer + 1, self._end)
        _, last, rest = capture(self.model, first, self._end, ids, attention)
        if self.model not in TRIED:
            self._try(last)
            TRIED.add(self.model)
        return rest if self.layer < self._end else None

    @torch.no_grad()
    def _try(self, last: Tensor) -> None:
        """Raise ValueError where the logits are not the model's own."""
        ids, attention = self.windows.ids[:2], self.windows.attention[:2]
        looked = torch.zeros_like(self.windows.attention)
        looked[:2] = attention
        check_replay(self._logits(last, looked), logits_of(forward(self.model, ids, attention))[attention])
