"""A model that reads texts as if they followed another one, which is read once: its keys and values are kept.

A model that was not trained on the language needs a few documents in front before it predicts by the grammar, and many
pairs of texts follow the same ones.
"""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.sources.language_model.blocks import text_config
from unbraid.sources.language_model.hooks import HookPoint, call_frozen, forward, logits_of, read
from unbraid.sources.language_model.sites import Site
from unbraid.sources.language_model.skipping import skipped
from unbraid.sources.text.windows import Reader, Windows

POSITIONS = 1024
"""Positions in one forward pass, about: each sequence has keys and values of the whole front."""


@dataclass(frozen=True, eq=False)
class Following:
    """A model and the text in front."""

    model: nn.Module
    place: HookPoint
    layer: int
    site: Site
    reader: Reader
    front: tuple[int, ...] = ()
    """Ids of the tokens in front, without BOS; empty: texts are read by themselves."""

    def __post_init__(self) -> None:
        if not self.front:
            return
        if text_config(self.model) is None:
            raise ValueError(
                f"{type(self.model).__name__} cannot go on from a text that it has read; read the language with a "
                "model of transformers"
            )
        if len(self.front) + self.reader.context > self.reader.positions:
            raise ValueError(
                f"{len(self.front)} tokens in front and a context of {self.reader.context} exceed the model's "
                f"{self.reader.positions} positions; lower --source.context"
            )

    def windows(self, documents: Sequence[Sequence[int]]) -> Windows:
        """Return windows of whole texts, given as ids. BOS stands before what is in front of them."""
        reader = replace(self.reader, bos=None) if self.front else self.reader
        return reader.whole(documents).to(self._device)

    @torch.no_grad()
    def activations(self, windows: Windows) -> Float[Tensor, "seq pos d_in"]:
        """Return the activations of whole windows, 0 on padding."""
        parts = [
            (which, read(self.model, self.place, part.ids, part.attention, **self._options(part)).float())
            for which, part in windows.by_length(POSITIONS)
        ]
        found = parts[0][1].new_zeros(*windows.ids.shape, parts[0][1].shape[-1])
        for which, acts in parts:
            found[which, : acts.shape[1]] = acts
        return found

    @torch.no_grad()
    def last(
        self, windows: Windows, acts: Float[Tensor, "seq pos d_in"] | None = None
    ) -> Float[Tensor, "seq vocabulary"]:
        """Return the logits at the last token of each window; with `acts`, when the activations at the site are these.
        What comes before is not computed then, where the model allows it."""
        found = [(which, self._last(part, acts, which)) for which, part in windows.by_length(POSITIONS)]
        order = torch.cat([which for which, _ in found]).argsort()
        return torch.cat([logits for _, logits in found])[order]

    def _last(self, part: Windows, acts: Tensor | None, which: Tensor) -> Float[Tensor, "some vocabulary"]:
        ends = part.attention.sum(1) - 1
        with ExitStack() as stack:
            if acts is not None:
                put = acts[which, : part.ids.shape[1]]
                stack.enter_context(skipped(self.model, self.layer, self.site))
                stack.enter_context(self.place.hooked(lambda hidden: put.to(hidden.dtype)))
            options, at = self._kept(ends)
            logits = logits_of(forward(self.model, part.ids, part.attention, **self._options(part), **options))
        return logits[torch.arange(len(at), device=at.device), at].float()

    def _kept(self, ends: Int[Tensor, " some"]) -> tuple[dict[str, Any], Int[Tensor, " some"]]:
        """Return the option by which a model gives the logits of these places alone, where it has one, and the places
        among those that it gives."""
        if not self.front or "logits_to_keep" not in inspect.signature(self.model.forward).parameters:
            return {}, ends
        places, at = ends.unique(return_inverse=True)
        return {"logits_to_keep": places}, at

    def _options(self, part: Windows) -> dict[str, Any]:
        """Return what tells the model of the text in front."""
        if not self.front:
            return {}
        past = copy.deepcopy(self._past)
        past.batch_repeat_interleave(len(part))
        before = part.attention.new_ones(len(part), self._length)
        return {
            "past_key_values": past,
            "use_cache": True,
            "attention_mask": torch.cat([before, part.attention], 1).long(),
        }

    @cached_property
    @torch.no_grad()
    def _past(self) -> Any:
        """The keys and values of the text in front."""
        ids = torch.tensor([list(self._before())], device=self._device)
        return call_frozen(self.model, input_ids=ids, use_cache=True).past_key_values

    def _before(self) -> Iterator[int]:
        if self.reader.bos is not None:
            yield self.reader.bos
        yield from self.front

    @property
    def _length(self) -> int:
        return len(self.front) + self.reader.prepend_bos

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
