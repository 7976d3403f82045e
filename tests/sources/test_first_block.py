"""The first block is read once for all who start from it, and is let go by the first stream."""

import torch

from unbraid.sources.first_block import _kept, read_and_keep
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.sources.world.world import World

WORLD = World(factors=64, d_in=8, l0=2.0, roots=4, block_rows=256)


def test_the_sample_and_the_stream_share_one_reading(monkeypatch):
    read: list[tuple[int, str]] = []
    original = World.block
    watched = lambda self, index, *, split, seed: (
        read.append((index, split)), original(self, index, split=split, seed=seed),
    )[1]  # fmt: skip
    alone = [next(Stream(WORLD, 64, seed=3)).x for _ in range(1)]
    monkeypatch.setattr(World, "block", watched)
    sample = fitting_sample(WORLD, 3)
    stream = Stream(WORLD, 64, seed=3)
    batches = [next(stream).x for _ in range(6)]
    assert read == [(0, "train"), (1, "train")] and torch.equal(batches[0], alone[0]) and not _kept
    assert torch.equal(fitting_sample(WORLD, 3), sample)


def test_another_source_or_seed_reads_its_own():
    block = read_and_keep(WORLD, 1)
    assert read_and_keep(WORLD, 1) is block
    other = next(Stream(WORLD, 256, seed=2)).x
    assert block is not None and not torch.equal(other.sum(0), block.rows.x.sum(0))
    assert read_and_keep(WORLD, 1) is not block, "the other stream has let it go"


def test_held_out_rows_are_never_the_kept_ones():
    kept = read_and_keep(WORLD, 0)
    held_out = next(Stream(WORLD, 256, seed=0, split="eval")).x
    assert kept is not None and not torch.equal(held_out.sort(0).values, kept.rows.x.sort(0).values)
