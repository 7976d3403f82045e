"""Co-occurrence by a dial: the twin at 0, the forest at 1, and the same marginals all the way."""

from dataclasses import replace

import pytest
import torch

from unbraid.config.serialise import fingerprint, to_json
from unbraid.sources.world.world import World

FOREST = World(factors=24, d_in=16, l0=2.0, roots=3, depth=2, correlation=0.6, exclusive=0.5, interactions=3,
               child_given_parent=(0.2, 0.7), dense=2)  # fmt: skip
HALF = replace(FOREST, co_occurrence=0.5)
ROWS = 120_000


def active(world: World) -> torch.Tensor:
    return (world.sample(ROWS, seed=1).z > 0).double()


@pytest.mark.parametrize("dial", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_marginals_are_the_same_at_every_dial(dial: float):
    p = FOREST.probabilities
    rates = active(replace(FOREST, co_occurrence=dial)).mean(0)
    assert ((rates - p).abs() <= 5 * (p * (1 - p) / ROWS).sqrt() + 1e-12).all()


def test_the_covariance_of_every_pair_is_the_dial_times_the_forests():
    half, forest = torch.cov(active(HALF).T), torch.cov(active(FOREST).T)
    p = FOREST.probabilities
    errors = (p.outer(p) * (1 - p).outer(1 - p) / ROWS + forest.abs() / ROWS).sqrt()
    apart = (half - 0.5 * forest).abs() / errors
    assert apart.fill_diagonal_(0).max() < 6


def test_children_are_as_likely_with_their_parent_as_stated():
    found = active(HALF)
    children = (HALF.parents >= 0).nonzero().squeeze(1)
    above = found[:, HALF.parents[children]]
    rates, counts, p = (above * found[:, children]).sum(0) / above.sum(0), above.sum(0), HALF.given_parent[children]
    assert ((rates - p).abs() <= 5 * (p * (1 - p) / counts).sqrt()).all()
    assert (found[:, children] * (1 - above)).sum() > 100  # some are active without their parent


def test_the_ends_are_the_twin_and_the_forest_bit_for_bit():
    alone = replace(FOREST, co_occurrence=0.0)
    assert torch.equal(alone.sample(500, seed=2).x, FOREST.twin().sample(500, seed=2).x)
    assert (alone.parents == -1).all()
    assert torch.equal(replace(FOREST, co_occurrence=1.0).sample(500, seed=2).x, FOREST.sample(500, seed=2).x)
    assert torch.equal(HALF.twin().sample(500, seed=2).x, FOREST.twin().sample(500, seed=2).x)


def test_the_dial_is_stored_only_where_it_is_turned():
    assert "co_occurrence" not in to_json(FOREST) and to_json(HALF)["co_occurrence"] == 0.5
    assert fingerprint(FOREST) != fingerprint(HALF)


@pytest.mark.parametrize("dial", [-0.1, 1.1])
def test_a_dial_beyond_the_marginals_is_refused(dial: float):
    """Above 1 a child would have to be active with its parent more often than it is active at all."""
    with pytest.raises(ValueError, match=r"co_occurrence is .*; it must be at least 0 and at most 1"):
        replace(FOREST, co_occurrence=dial)


@pytest.mark.parametrize("dial", [0.05, 0.95])
def test_a_single_row_can_be_drawn(dial: float):
    world = replace(FOREST, co_occurrence=dial)
    assert all(world.sample(1, seed=seed).x.shape == (1, 16) for seed in range(20))
