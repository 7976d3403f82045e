"""Batches of activations from a source: a shuffled stream for training, fixed rows held out for evals."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import PositiveInt, checked
from unbraid.sources.base import Batch, NoHeldOut, Source, Split
from unbraid.sources.first_block import taken_over


@dataclass
class Position:
    """The position of a stream. `carry` holds the rows left over from the blocks before `block`, fewer than a batch."""

    block: int = 0
    taken: int = 0
    filtered: int = 0
    carry: list[Batch] = field(default_factory=list)


class Stream(Iterator[Batch]):
    """Token-shuffled batches of one split: rows are permuted within each block (the shuffle buffer).

    The last rows of a block that do not fill a batch are carried into the next. Raises ValueError when the data ends.
    """

    def __init__(self, source: Source, batch_size: int, *, seed: int, split: Split = "train"):
        self.source, self.batch_size, self.seed = source, checked("batch_size", batch_size, PositiveInt), seed
        self.split: Split = split
        self.position = Position()
        self._pool: Batch | None = None

    def __next__(self) -> Batch:
        pool = self._pool if self._pool is not None else self._fill()
        while len(pool) - self.position.taken < self.batch_size:
            rest = pool[self.position.taken :]
            self.position = Position(self.position.block + 1, 0, self.position.filtered, [rest] if len(rest) else [])
            pool = self._fill()
        rows = pool[self.position.taken : self.position.taken + self.batch_size]
        self.position.taken += self.batch_size
        return rows

    def restore(self, position: Position) -> None:
        """Continue from a saved position: the next batch equals the one an uninterrupted stream would give."""
        self.position = Position(position.block, 0, position.filtered, list(position.carry))
        self._pool = None
        if position.block or position.taken or position.carry:
            self._fill(count=False)
            self.position.taken = position.taken

    def _fill(self, *, count: bool = True) -> Batch:
        index = self.position.block
        if self.split == "train":
            block = taken_over(self.source, index, seed=self.seed)
        else:
            block = self.source.block(index, split=self.split, seed=self.seed)
        if block is None:
            raise ValueError(
                f"the {self.split} data ended after {index} blocks ({self.source.available(self.split):,.0f} tokens); "
                "give more text, ask for fewer tokens (--training.tokens), or allow more passes (--source.epochs)"
            )
        check_finite(block.rows.x, f"block {index} of the {self.split} split")
        rows = Batch.join([*self.position.carry, block.rows])
        order = torch.randperm(len(rows), generator=seeding.stream(self.seed, f"shuffle/{self.split}/{index}"))
        self._pool = rows[order]
        if count:
            self.position.filtered += block.filtered
        return self._pool


def check_finite(x: Tensor, where: str) -> None:
    """Raise ValueError when activations hold NaN or infinity: training on them would be lost silently."""
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).any(-1).sum())
        raise ValueError(
            f"{bad} of {x.shape[0]} activations hold NaN or infinity ({where}); "
            "load the model in float32, or another layer"
        )


def held_out(source: Source, rows: int) -> Batch:
    """Return the first `rows` activations of the eval split, the same for every eval and run of a source.

    There are fewer when the split ends. Raises NoHeldOut when there are none, ValueError for fewer than one row.
    """
    if rows < 1:
        raise ValueError(f"the number of held-out rows is {rows}; it must be 1 or more")
    read = so_far(source)
    while read.rows is None or len(read.rows) < rows:
        block = source.block(read.blocks, split="eval", seed=0)
        if block is None:
            break
        check_finite(block.rows.x, "the eval split")
        read.rows = block.rows if read.rows is None else Batch.join([read.rows, block.rows])
        read.blocks += 1
    if not read.rows:
        raise NoHeldOut(f"the source has no eval data: {source.more_held_out}")
    return read.rows[:rows]


@dataclass
class HeldOut:
    """The eval split as far as it was read."""

    rows: Batch | None = None
    blocks: int = 0


@lru_cache(maxsize=2)
def so_far(source: Source) -> HeldOut:
    """Return what was read of a source's eval split: `held_out` adds to it."""
    return HeldOut()
