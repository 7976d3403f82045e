import pytest
import torch

from tests.small import WORLD
from unbraid.sources.base import Batch, Block, Source
from unbraid.sources.stream import Position, Stream, check_finite, held_out


class Short(Source):
    """Three blocks of ten rows, numbered; block 1 is bad when asked to be."""

    def __init__(self, bad: bool = False):
        self.bad = bad

    @property
    def d_in(self):
        return 2

    def block(self, index, *, split, seed):
        if index == 3:
            return None
        ids = torch.arange(10) + 10 * index
        x = torch.stack([ids.float(), torch.ones(10)], 1)
        if self.bad and index == 1:
            x[4, 1] = torch.nan
        return Block(Batch(x, ids, ids, ids), filtered=index)

    def contexts(self, count, *, split, seed):
        raise AssertionError

    def available(self, split):
        return 30.0

    def metadata(self):
        return {}

    def sample_text(self, count):
        return []


def test_a_stream_gives_every_row_once_and_carries_leftovers_over():
    stream = Stream(Short(), 4, seed=0)
    seen = torch.cat([next(stream).tokens for _ in range(7)])
    assert len(seen.unique()) == 28
    assert stream.position.filtered == 0 + 1 + 2


def test_a_stream_says_what_to_do_when_the_data_ends():
    stream = Stream(Short(), 4, seed=0)
    for _ in range(7):
        next(stream)
    with pytest.raises(ValueError, match="ended after 3 blocks \\(30 tokens\\).*--training.tokens.*epochs"):
        next(stream)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 5, 6])
def test_a_restored_stream_continues_as_if_never_stopped(taken):
    whole, stopped = Stream(Short(), 4, seed=3), Stream(Short(), 4, seed=3)
    for _ in range(taken):
        next(whole)
        next(stopped)
    position = stopped.position
    resumed = Stream(Short(), 4, seed=3)
    resumed.restore(Position(position.block, position.taken, position.filtered, list(position.carry)))
    for _ in range(7 - taken):
        wanted, got = next(whole), next(resumed)
        assert torch.equal(wanted.x, got.x) and torch.equal(wanted.tokens, got.tokens)
    assert resumed.position.filtered == whole.position.filtered


def test_rows_are_shuffled_within_the_buffer_and_by_seed():
    first = next(Stream(WORLD, 256, seed=0)).documents
    assert not torch.equal(first, first.sort().values)
    assert torch.equal(first, next(Stream(WORLD, 256, seed=0)).documents)
    assert not torch.equal(first, next(Stream(WORLD, 256, seed=1)).documents)


def test_nan_activations_are_refused_with_their_place():
    stream = Stream(Short(bad=True), 8, seed=0)
    next(stream)
    with pytest.raises(ValueError, match="1 of 10 activations hold NaN.*block 1 of the train split"):
        next(stream)
    with pytest.raises(ValueError, match="infinity"):
        check_finite(torch.tensor([[1.0, torch.inf]]), "here")


def test_held_out_rows_come_from_the_eval_split_alone():
    rows = held_out(WORLD, 500)
    assert len(rows) == 500
    block = WORLD.block(0, split="eval", seed=0)
    assert block is not None and torch.equal(rows.x, block.rows.x[:500])
