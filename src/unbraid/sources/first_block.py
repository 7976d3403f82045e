"""The first training block, read once for the fitting sample and for the stream: a large model takes minutes for it."""

from unbraid.sources.base import Block, Source

_kept: dict[tuple[Source, int], Block] = {}
"""At most one: a block takes as much memory as the shuffle buffer."""


def read_and_keep(source: Source, seed: int) -> Block | None:
    """Return the first block of the train split, and keep it until a stream takes it over."""
    kept = _kept.get((source, seed))
    block = source.block(0, split="train", seed=seed) if kept is None else kept
    _kept.clear()
    if block is not None:
        _kept[source, seed] = block
    return block


def taken_over(source: Source, index: int, *, seed: int) -> Block | None:
    """Return a block of the train split: the kept one where it is this, and from now on none is kept."""
    kept = _kept.pop((source, seed), None)
    _kept.clear()
    return kept if kept is not None and index == 0 else source.block(index, split="train", seed=seed)
