"""Minimal pairs differ in one factor, and both rows are ones the world allows."""

import pytest
import torch

from unbraid.sources.tensor import Activations
from unbraid.sources.world.minimal_pairs import childless, without_one
from unbraid.sources.world.world import World

WORLD = World(factors=64, d_in=68, l0=4.0, roots=8, noise=0.0, coherence=0.0, circles=2, spheres=1, interactions=4)


def drawn(seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    x, firings = WORLD._sampler.draw(4096, rng)
    return without_one(x, firings, WORLD.directions, WORLD._manifolds, WORLD.parents, rng), firings


def test_one_factor_is_taken_away_and_nothing_else():
    (x, changed, factor), _ = drawn()
    straight = factor < WORLD.factors - 3  # a manifold's point need not lie on its first axis
    moved = (x - changed) @ WORLD.directions.T
    others = moved.clone()
    others[torch.arange(len(factor)), factor] = 0
    assert (moved[torch.arange(len(factor)), factor][straight] > 0.1).all()
    assert others[straight].abs().max() < 1e-4
    curved = (x - changed)[~straight]
    assert len(curved) and (curved.norm(dim=1) > 0.1).all()


def test_no_child_is_left_without_its_parent():
    (_, _, factor), firings = drawn()
    can = childless(firings, WORLD.parents)
    for row, lost in zip(firings.rows[can].tolist()[:500], firings.factors[can].tolist()[:500], strict=True):
        active = firings.factors[firings.rows == row]
        assert not (WORLD.parents[active] == lost).any()
    assert len(factor.unique()) > 0.9 * WORLD.factors


def test_every_row_with_a_factor_gives_one_pair():
    (x, _, _), firings = drawn()
    assert len(x) == len(firings.rows.unique())


def test_pairs_are_the_seeds_and_the_splits():
    first, again, other = (WORLD.counterfactuals(64, split="train", seed=s) for s in (1, 1, 2))
    assert torch.equal(first.changed, again.changed) and not torch.equal(first.x[:8], other.x[:8])
    assert not torch.equal(first.x[:8], WORLD.counterfactuals(64, split="eval", seed=1).x[:8])


def test_a_source_without_pairs_names_those_that_have_some():
    with pytest.raises(ValueError, match="World, LanguageModel"):
        Activations(torch.eye(8)).counterfactuals(4, split="train", seed=0)
