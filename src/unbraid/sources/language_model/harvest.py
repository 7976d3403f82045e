"""Blocks of activations: one pass of the model for all layers that are wanted of it, windows of like length together.

Windows of one length need no padding, which would take as long as text does. Rows are in the order of the text,
whatever was run together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.sources.base import Batch, Block, Split
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.hooks import read_all
from unbraid.sources.stream import check_finite
from unbraid.sources.text.windows import Packed

if TYPE_CHECKING:
    from unbraid.sources.language_model.language_model import LanguageModel


@dataclass(eq=False)
class Harvest:
    """Blocks of sources that differ in their layer alone; each block is the source's own, bit for bit."""

    sources: "Sequence[LanguageModel]"
    known: list[float] | None = None
    """The limits, once they have been found."""

    def blocks(self, index: int, *, split: Split, seed: int) -> list[Block] | None:
        """Return each source's block; None past the end of the data."""
        found = self._rows(index, split, seed)
        if found is None:
            return None
        if self.known is None and (index, split, seed) == (0, "train", 0):  # the block that limits rest on
            self.known = self._limits(found)
        return [quiet(rows, most) for rows, most in zip(found, self.limits, strict=True)]

    @property
    def limits(self) -> list[float]:
        """The norm, by source, above which a row is left out."""
        if self.known is None:
            self.known = self._limits(self._rows(0, "train", 0) if self.sources[0].max_norm_ratio else None)
        return self.known

    def _limits(self, first: list[Batch] | None) -> list[float]:
        """Return the limits. `first`: rows of the first train block of seed 0."""
        ratio = self.sources[0].max_norm_ratio
        if not ratio:
            return [float("inf")] * len(self.sources)
        assert first is not None
        return [ratio * float(rows.x.norm(dim=1).median()) for rows in first]

    def _rows(self, index: int, split: Split, seed: int) -> list[Batch] | None:
        """Return all rows of a block that the token policy keeps, before the norm filter."""
        found = self.sources[0]._corpus.block(index, split=split, seed=seed)
        if found is None:
            return None
        rows = self._read(*found)
        for own, source in zip(rows, self.sources, strict=True):
            check_finite(own.x, f"layer {source.layer} of {source.model}, block {index} of the {split} split")
        return rows

    def _read(self, packed: Packed, which: Int[Tensor, " seq"]) -> list[Batch]:
        """Run windows, the longest first, and return their kept rows in the order of `which`, by source."""
        source = self.sources[0]
        count = packed.kept[which]
        begin = count.cumsum(0) - count
        into: list[Tensor] = []
        for group in packed.length[which].argsort(descending=True, stable=True).split(source.batch):
            windows = packed.windows(which[group]).to(source._device)
            keep = windows.keep
            positions = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
            facts = windows.ids, windows.documents[:, None].expand_as(keep), positions
            hooks = [one._hook_point for one in self.sources]
            parts = [part[keep] for part in (*facts, *read_all(source._model, hooks, windows.ids, windows.attention))]
            if not into:
                kinds = [part.dtype if number < len(facts) else torch.float32 for number, part in enumerate(parts)]
                size = int(count.sum())
                into = [p.new_empty((size, *p.shape[1:]), dtype=k) for p, k in zip(parts, kinds, strict=True)]
            places = places_of(begin[group], count[group]).to(keep.device)
            for whole, part in zip(into, parts, strict=True):
                whole[places] = part.to(whole.dtype)
        columns, found = into[:3], into[3:]
        return [Batch(x, *columns) for x in found]


def quiet(rows: Batch, most: float) -> Block:
    """Return the rows whose norm is at most this, and the number of the others."""
    kept = rows.x.norm(dim=1) <= most
    return Block(rows if bool(kept.all()) else rows[kept], int((~kept).sum()))


def places_of(begin: Int[Tensor, " window"], count: Int[Tensor, " window"]) -> Int[Tensor, " row"]:
    """Return the places begin, begin + 1, … of as many rows as each window has, window after window."""
    before = count.cumsum(0) - count
    return torch.repeat_interleave(begin - before, count) + torch.arange(int(count.sum()))


def at_layers(source: "LanguageModel", layers: Sequence[str]) -> "list[LanguageModel]":
    """Return a source at several layers, which share its text. layers: numbers, or shares of the depth: 10, 1/3.

    Raises ValueError, with the number of blocks, for a layer that does not exist or is named twice.
    """
    depth = len(blocks(source._model)[1])
    numbers = [layer_number(layer, depth) for layer in layers]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise ValueError(f"the layers {', '.join(layers)} name layer {min(twice)} twice; name each once")
    found = [replace(source, layer=number) for number in numbers]
    shared = {name: getattr(source, name) for name in ("loaded_tokenizer", "_config", "_reader", "_corpus")}
    for one in found:
        vars(one).update(shared)  # the text is tokenised once
    return found


def layer_number(layer: str, depth: int) -> int:
    """Return the layer that a number or a share of the depth names. Raises ValueError for what is none."""
    whole = re.fullmatch(r"\d{1,4}", layer)
    share = re.fullmatch(r"(\d{1,4})/(\d{1,4})", layer)
    number = int(layer) if whole else -1
    if share and int(share[2]) > 0:
        number = depth * int(share[1]) // int(share[2])
    if not 0 <= number < depth:
        raise ValueError(
            f"{layer!r} is no layer of this model, which has {depth}: name a number from 0 to {depth - 1}, or a share "
            "of its depth, such as 1/3"
        )
    return number
