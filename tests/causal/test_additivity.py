"""Effects that add up, effects that do not, and effects that depend on the context."""

import math

import pytest
import torch
from tests.slices import D_IN, at, exponential, orthonormal
from tests.steps import rng, units

from unbraid.effects.additivity import additivity, rings
from unbraid.effects.effect import pooled_effect

PLANTED, OUTPUTS = orthonormal(8), orthonormal(8, 2)
ACTS = 0.3 * torch.randn(8, 4, D_IN, generator=rng(3), dtype=torch.float64)


def test_a_linear_slice_adds_up_and_does_not_see_the_context():
    matrix = torch.randn(D_IN, D_IN, generator=rng(4), dtype=torch.float64)
    found = additivity(at(ACTS, lambda acts: acts + acts @ matrix), units(8, D_IN, 5))
    assert found == pytest.approx((1, 1))


def test_planted_directions_add_up_but_for_the_context_and_mixtures_do_not():
    contexts = at(ACTS, exponential(PLANTED, OUTPUTS))
    planted, mixed = additivity(contexts, PLANTED), additivity(contexts, units(8, D_IN, 6))
    assert planted.r2 == pytest.approx(planted.ceiling, abs=0.02) and planted.ceiling < 0.95
    assert mixed.r2 < mixed.ceiling - 0.05


def test_one_context_leaves_nothing_but_interaction():
    still = at(torch.zeros(2, 1, D_IN, dtype=torch.float64), exponential(PLANTED, OUTPUTS))
    assert additivity(still, PLANTED) == pytest.approx((1, 1))
    pushes = units(8, D_IN, 6)
    sets = rings(8).double()
    alone, together = pooled_effect(still, pushes), pooled_effect(still, sets @ pushes)
    missed = (together - sets @ alone).square().sum() / together.square().sum()
    assert additivity(still, pushes) == pytest.approx((1 - missed.item(), 1))


def test_sets_are_of_two_three_and_four():
    sets = rings(6)
    assert sets.sum(1).tolist() == [2] * 6 + [3] * 6 + [4] * 6
    assert sets[17].nonzero().squeeze(1).tolist() == [
        0,
        1,
        2,
        5,
    ]


def test_a_nearly_blind_direction_adds_up_too_so_that_size_must_stand_beside_it():
    hidden = torch.linalg.svd(PLANTED, full_matrices=True)[2][8:]
    nearly = torch.nn.functional.normalize(hidden + 0.02 * units(8, D_IN, 7), dim=1)
    still = at(torch.zeros(2, 1, D_IN, dtype=torch.float64), exponential(PLANTED, OUTPUTS))
    assert additivity(still, nearly).r2 > 0.995
    sizes = [float(pooled_effect(still, part).norm(dim=1).mean()) for part in (nearly, units(8, D_IN, 8))]
    assert sizes[0] < 0.05 * sizes[1]


def test_too_few_pushes_or_one_sequence_or_no_effect_is_nan():
    contexts = at(ACTS, exponential(PLANTED, OUTPUTS))
    for given, pushes in ((contexts, PLANTED[:4]), (at(ACTS[:1], lambda a: a), PLANTED), (at(ACTS, abs), 0 * PLANTED)):
        assert all(math.isnan(value) for value in additivity(given, pushes))
