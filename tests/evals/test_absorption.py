"""Absorption: none in the truth, all of it in a dictionary made to absorb, and nothing to say of an untrained one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from tests.known import EXACT, Undirected, readers, reading, truth, untrained
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.absorption import DEFINITIONS, absorption_scores
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.evals.shared.parents import families
from unbraid.sources.truth import Truth
from unbraid.sources.world.world import World

STEADY = replace(EXACT, spread=0.0, coherence=0.0)
"""Magnitudes of exactly 1 and orthonormal directions, so that what absorption leaves is a round number."""
CLEAN = {"absorption_full": 0, "absorption_fractional": 0, "parent_recall_given_child": 1, "parent_recall_alone": 1}


def scored(dictionary: Dictionary, truth: Truth = STEADY) -> dict[str, float]:
    scores = absorption_scores(dictionary, truth)
    return {s.metric: s.value for s in scores if s.kind != "chance"}


def absorbing(world: World, share: float) -> Dictionary:
    """Parents' latents leave out `share` of the parent for each active child, whose latent supplies it."""
    reads, atoms = readers(world), world.directions.clone()
    children = (world.parents >= 0).nonzero().squeeze(1)
    parents = world.parents[children]
    W_enc = reads.index_add(0, parents, -share * reads[children])
    atoms[children] += share * world.directions[parents]
    W_enc[children] *= torch.linalg.vector_norm(atoms[children], dim=1, keepdim=True)
    return reading(world, W_enc, atoms)


def test_the_truth_absorbs_nothing():
    assert scored(truth(EXACT), EXACT) == pytest.approx({**CLEAN, "scorable": 1}, abs=1e-6)


def test_a_child_latent_that_speaks_for_a_silent_parent_is_full_absorption():
    found = scored(absorbing(STEADY, 1.0))
    assert found == pytest.approx(
        {
            "absorption_full": 1, "absorption_fractional": 1, "parent_recall_given_child": 0,
            "parent_recall_alone": 1, "scorable": 1,
        }
    )  # fmt: skip


def test_a_child_latent_that_holds_half_of_its_parent_is_half_absorption_and_no_silence():
    one_child = replace(STEADY, branching=1)
    found = scored(absorbing(one_child, 0.5), one_child)
    assert found == pytest.approx({**CLEAN, "absorption_fractional": 0.5, "scorable": 1}, abs=1e-5)


def test_absorption_is_seen_without_directions():
    assert scored(absorbing(STEADY, 1.0), Undirected(STEADY))["absorption_full"] == 1
    found = scored(truth(STEADY), Undirected(STEADY))
    assert found["absorption_full"] == 0 and "absorption_fractional" not in found


@pytest.mark.parametrize("order", [torch.arange(23, -1, -1), torch.arange(24).repeat(2)], ids=["permuted", "doubled"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_neither_the_order_nor_a_second_copy_of_the_latents_matters(order: Tensor, share: float):
    made = absorbing(STEADY, share)
    moved = reading(STEADY, made.W_enc.T[order], made.W_dec[order])
    # A second copy of a child's latent supplies what the first did once more; it can be missing only once.
    assert scored(moved) == pytest.approx(scored(made), abs=1e-5)


def test_a_parent_in_two_halves_is_found_and_not_absorbed():
    """One latent a parent where the factor beside it is active, one where it is not: both are the parent's."""
    beside = EXACT.factors - 1
    reads = readers(STEADY)
    halves = torch.cat([reads[:4] + reads[beside], reads[:4] - reads[beside]])
    W_enc, atoms = torch.cat([halves, reads[4:]]), STEADY.directions[[*range(4), *range(4), *range(4, 24)]]
    b_enc = torch.tensor([-1.0] * 4 + [0.0] * 24)
    assert scored(reading(STEADY, W_enc, atoms, b_enc=b_enc))["parent_recall_given_child"] == pytest.approx(1.0)


def test_a_latent_of_the_parent_that_speaks_only_with_a_child_absorbs_it():
    """For two of the children together, neither of which it stands for."""
    reads, atoms = readers(STEADY), STEADY.directions
    children = torch.stack([(STEADY.parents == parent).float() for parent in range(4)])
    W_enc = torch.cat([reads[:4] - children @ reads, children @ reads, reads[4:]])
    found = scored(reading(STEADY, W_enc, atoms[[*range(4), *range(4), *range(4, 24)]]))
    assert (found["absorption_full"], found["parent_recall_given_child"]) == pytest.approx((1, 0))


def test_a_parent_that_a_second_latent_detects_everywhere_is_not_absorbed():
    """Beside the latents that fall silent there are others, that fire for another parent's rarer child too."""
    world = replace(STEADY, child_given_parent=(0.2, 0.4), zipf=0.0)
    absorbed, reads = absorbing(world, 1.0), readers(world)
    W_enc = torch.cat([absorbed.W_enc.T, reads[:4] + 0.5 * reads[[6, 8, 10, 4]]])
    atoms = torch.cat([absorbed.W_dec, world.directions[:4]])
    found = scored(reading(world, W_enc, atoms, b_enc=torch.tensor([0.0] * 24 + [-0.4] * 4)), world)
    assert (found["absorption_full"], found["parent_recall_given_child"]) == pytest.approx((0, 1))


def test_a_parent_that_no_latent_detects_is_missing_not_absorbed():
    deaf = truth(STEADY)
    deaf.threshold[:2] = 1e6  # two of four parents
    assert scored(deaf) == pytest.approx({**CLEAN, "scorable": 0.5}, abs=1e-6)


def test_an_untrained_dictionary_has_next_to_nothing_to_score():
    world = World(factors=128, d_in=32)
    assert scored(untrained(world, 128), world)["scorable"] < 0.1


def test_a_dictionary_that_never_fires_scores_nan_and_does_not_fail():
    silent = truth(STEADY)
    silent.threshold.fill_(1e6)
    found = scored(silent)
    assert found.pop("scorable") == 0 and all(math.isnan(value) for value in found.values())


def test_latents_that_always_fire_detect_no_parent_however_common():
    common = World(
        factors=8, d_in=16, l0=3.6, roots=2, branching=1, depth=1, zipf=0.0, child_given_parent=(0.3, 0.3),
        interactions=0, noise=0.0,
    )  # fmt: skip
    always = truth(common)
    always.b_enc.fill_(100.0)
    assert scored(always, common)["scorable"] == 0


def test_families_are_counted_by_hand():
    parent, child, other = ([1] * 40 + [0] * 20), ([1] * 15 + [0] * 45), ([0] * 5 + [1] * 3 + [0] * 52)
    factors = csc_array(np.array([parent, child, other]).T)
    (found,) = families(factors, np.array([-1, 0, 1]), 60)
    assert (found.parent, found.with_child.sum(), found.alone.sum()) == (0, 15, 25)


def test_a_world_without_children_has_nothing_to_absorb():
    flat = World(factors=24, d_in=32, l0=2.0, roots=4, depth=0, interactions=2)
    with pytest.raises(NotApplicable, match="nothing to absorb"):
        absorption_scores(truth(flat), flat)


def test_every_score_is_defined():
    scores = absorption_scores(truth(EXACT), EXACT)
    assert {score.metric for score in scores} == set(DEFINITIONS)
    given_child = [s for s in scores if s.metric == "parent_recall_given_child"]
    assert [s.kind for s in given_child] == ["measured", "chance"] and given_child[1].value < 1e-3
