"""The first block is read once for all who start from it, and is let go by the first stream."""

from dataclasses import replace

import pytest
import torch

from unbraid.sources.base import Split
from unbraid.sources.first_block import first_block, reading_once
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.sources.world.world import World

WORLD = World(factors=64, d_in=8, l0=2.0, roots=4, block_rows=256)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, int]]:
    """Every block that is read from here on: its number, split and seed."""
    found: list[tuple[int, str, int]] = []
    original = World.block

    def block(self: World, index: int, *, split: Split, seed: int):
        found.append((index, split, seed))
        return original(self, index, split=split, seed=seed)

    monkeypatch.setattr(World, "block", block)
    return found


def batches(count: int) -> list[torch.Tensor]:
    """The first batches of a stream, of more than one block."""
    stream = Stream(WORLD, 64, seed=3)
    return [next(stream).x for _ in range(count)]


def test_the_sample_and_the_stream_share_one_reading(read):
    alone, sampled = batches(6), fitting_sample(WORLD, 3)
    read.clear()
    with reading_once():
        again, streamed = fitting_sample(WORLD, 3), batches(6)
    assert read == [(0, "train", 3), (1, "train", 3)]
    assert torch.equal(again, sampled) and all(map(torch.equal, streamed, alone))


def test_a_stream_lets_the_block_go(read):
    with reading_once():
        first_block(WORLD, 3)
        batches(1)
        first_block(WORLD, 3)
    assert read == [(0, "train", 3)] * 2


def test_nothing_is_kept_outside_nor_after_a_start_that_failed(read):
    with pytest.raises(ValueError, match="no room"), reading_once():
        first_block(WORLD, 3)
        raise ValueError("no room")
    batches(1)
    fitting_sample(WORLD, 3)
    batches(1)
    assert read == [(0, "train", 3)] * 4


def test_another_source_seed_or_split_reads_its_own(read):
    with reading_once():
        first_block(WORLD, 3)
        next(Stream(WORLD, 64, seed=3, split="eval"))
        next(Stream(WORLD, 64, seed=2))
        first_block(WORLD, 3)
        next(Stream(replace(WORLD), 64, seed=3))
    assert read == [(0, "train", 3), (0, "eval", 3), (0, "train", 2), (0, "train", 3), (0, "train", 3)]
