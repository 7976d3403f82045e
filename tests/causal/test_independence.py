"""Overlap, rank and interaction of effects, by hand."""

import math

import pytest
import torch

from unbraid.effects.effect import pooled_effect
from unbraid.effects.independence import effect_rank, interactions, largest_cosines
from unbraid.effects.set_latent import modularity, moves, shares
from unbraid.sources.base import Contexts

EYE = torch.eye(4, dtype=torch.float64)


def contexts(downstream) -> Contexts:
    acts = torch.zeros(2, 3, 4, dtype=torch.float64)
    return Contexts(acts, torch.ones(2, 3, dtype=torch.bool), downstream(acts), downstream)


def test_orthogonal_effects_do_not_overlap_and_copies_do():
    assert largest_cosines(EYE, -EYE).tolist() == [0, 0, 0, 0]
    assert largest_cosines(EYE, 3 * EYE).tolist() == [1, 1, 1, 1]
    assert largest_cosines(torch.cat([EYE[:1], 2 * EYE[:1], -EYE[:1]]), -EYE[[1, 1, 1]]).tolist() == [1, 1, 0]


def test_the_rank_is_the_number_of_equal_orthogonal_effects():
    assert effect_rank(5 * EYE) == pytest.approx(4)
    assert effect_rank(EYE[[0, 0, 0]]) == pytest.approx(1)
    assert effect_rank(torch.diag(torch.tensor([3.0, 1, 0, 0]).double())) == pytest.approx((9 + 1) ** 2 / (81 + 1))
    assert math.isnan(effect_rank(0 * EYE))


def test_a_product_downstream_is_an_interaction_and_a_sum_is_none():
    product = lambda acts: torch.stack([acts[..., 0], acts[..., 1], 2 * acts[..., 0] * acts[..., 1]], -1)
    left, right = 3 * EYE[[0, 0]], 2 * EYE[[1, 2]]

    def found(downstream):
        given = contexts(downstream)
        return interactions(*(pooled_effect(given, part) for part in (left + right, left, right)))

    # Together 2 * 3 * 2 on the third axis; apart 3 and 2 on their own.
    assert found(product).tolist() == pytest.approx([12 / 5, 0])
    assert found(lambda acts: acts @ (EYE + 1)).tolist() == pytest.approx([0, 0])
    assert found(lambda acts: acts).isnan().all()


def test_setting_a_latent_moves_readouts_by_hand():
    x = torch.tensor([[1.0, 0, 0], [0.0, 0, 0]])
    moved = moves(
        lambda acts: acts[..., :2].relu(), x, EYE[:3, :3].float(), torch.eye(3)[:2], torch.tensor([3.0, 1, 1])
    )
    # The first latent is 1 in the first row: it goes up by 2 there and by 3 in the other.
    assert moved.tolist() == [[2.5, 0], [0, 0.5], [0, 0]]
    assert modularity(moved)[:2].tolist() == [1, 1] and modularity(moved)[2].isnan()


def test_modularity_by_hand():
    moved = torch.tensor([[1.0, 1, 1, 1], [2, 0, 0, 0], [2, 1, 1, 0]])
    assert modularity(moved).tolist() == pytest.approx([0, 1, (0.5 - 0.25) / 0.75])
    assert shares(moved)[2].tolist() == [0.5, 0.25, 0.25, 0]
    assert modularity(moved[:, :1]).isnan().all(), "nothing can be told apart from one factor"
