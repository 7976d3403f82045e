"""The first training block, read once for the fitting sample and for the stream: a large model takes minutes for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from unbraid.sources.base import Block, Source


class ReadAhead(NamedTuple):
    """A block that was read and is still to be streamed."""

    source: Source
    seed: int
    block: Block


_ahead: ContextVar[list[ReadAhead] | None] = ContextVar("ahead", default=None)
"""At most one, as a block takes as much memory as the shuffle buffer; None where nothing is kept."""


@contextmanager
def reading_once() -> Iterator[None]:
    """Keep the first block that is read until a stream takes it over, and let it go at the end in any case."""
    token = _ahead.set([])
    try:
        yield
    finally:
        _ahead.reset(token)


def first_block(source: Source, seed: int) -> Block | None:
    """Return the first block of the train split; within `reading_once` it is kept for the stream."""
    ahead = _ahead.get()
    block = found(ahead, source, seed) or source.block(0, split="train", seed=seed)
    if ahead is not None:
        ahead[:] = [] if block is None else [ReadAhead(source, seed, block)]
    return block


def taken_over(source: Source, index: int, *, seed: int) -> Block | None:
    """Return a block of the train split: the kept one where it is this, and from now on none is kept."""
    ahead = _ahead.get()
    block = None if index else found(ahead, source, seed)
    if ahead is not None:
        ahead.clear()
    return block or source.block(index, split="train", seed=seed)


def found(ahead: list[ReadAhead] | None, source: Source, seed: int) -> Block | None:
    """Return the block that is kept of this very source, which need not be hashable."""
    return next((one.block for one in ahead or () if one.source is source and one.seed == seed), None)
