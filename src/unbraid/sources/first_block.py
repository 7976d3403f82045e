"""The first training block, read once for the fitting sample and for the stream: a large model takes minutes for it."""

from typing import NamedTuple

from unbraid.sources.base import Block, Source


class ReadAhead(NamedTuple):
    """A block that was read and is still to be streamed."""

    source: Source
    seed: int
    block: Block


_kept: list[ReadAhead] = []
"""At most one: a block takes as much memory as the shuffle buffer."""


def read_and_keep(source: Source, seed: int) -> Block | None:
    """Return the first block of the train split, and keep it until a stream takes it over."""
    block = kept_block(source, seed) or source.block(0, split="train", seed=seed)
    _kept[:] = [] if block is None else [ReadAhead(source, seed, block)]
    return block


def taken_over(source: Source, index: int, *, seed: int) -> Block | None:
    """Return a block of the train split: the kept one where it is this, and from now on none is kept."""
    kept = None if index else kept_block(source, seed)
    _kept.clear()
    return kept or source.block(index, split="train", seed=seed)


def kept_block(source: Source, seed: int) -> Block | None:
    """Return the block that is kept of this very source, which need not be hashable."""
    return next((kept.block for kept in _kept if kept.source is source and kept.seed == seed), None)
