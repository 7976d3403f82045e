"""KL budgets: lengths equal to those of scipy on linear softmax models, both ways; what is out of reach."""

import pytest
import torch
from scipy.optimize import brentq
from tests.causal.slices import rng, units
from torch import Tensor

from unbraid.effects.budget import require_reached, spend
from unbraid.effects.next_token_kl import divergence, next_token_kl
from unbraid.sources.base import Predictions

D_IN, VOCABULARY = 6, 11
UNEMBEDDING = torch.randn(D_IN, VOCABULARY, dtype=torch.float64, generator=rng(1))


def linear_text(seq: int = 2, pos: int = 4) -> Predictions:
    """A linear softmax model."""
    acts = torch.randn(seq, pos, D_IN, dtype=torch.float64, generator=rng(2))
    mask = torch.ones(seq, pos, dtype=torch.bool)
    mask[0, 0] = False
    logits = lambda x: (x @ UNEMBEDDING)[..., mask, :]
    return Predictions(acts, mask, logits(acts).log_softmax(-1), logits)


def kl_by_hand(text: Predictions, push: Tensor) -> float:
    """The sum written out, token by token."""
    total = 0.0
    kept = text.acts[text.mask]
    for x in kept:
        p, q = ((at @ UNEMBEDDING).softmax(0) for at in (x, x + push))
        total += float((p * (p / q).log()).sum())
    return total / len(kept)


def test_the_kl_is_the_sum_written_out_whatever_is_folded_together():
    text, pushes = linear_text(), 0.7 * units(5, D_IN, 3)
    wanted = torch.tensor([kl_by_hand(text, push) for push in pushes], dtype=torch.float64)
    for positions in (1, 16, 10_000):
        torch.testing.assert_close(next_token_kl([text], pushes, positions), wanted)
    torch.testing.assert_close(next_token_kl([text, text], pushes), wanted)


def test_a_coin_of_equal_sides_turned_to_three_in_four_costs_144_millinats():
    # KL of (1/2, 1/2) from (3/4, 1/4): half of log(2/3) + half of log 2
    clean, logits = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[3.0, 1.0]]).log()
    assert float(divergence(clean, logits)) == pytest.approx(0.143841, abs=1e-6)


def test_the_kl_is_differentiable():
    text = linear_text(1, 3)
    assert torch.autograd.gradcheck(lambda v: next_token_kl([text], v, 3), (units(2, D_IN, 3).requires_grad_(),))


@pytest.mark.parametrize("budget", [1e-3, 0.1, 0.5, 2.0])
def test_lengths_are_those_of_a_root_finder_both_ways(budget):
    text, ways = linear_text(), torch.cat([units(4, D_IN, 5), -units(4, D_IN, 5)])
    found = spend(lambda pushes: next_token_kl([text], pushes), ways, budget, longest=50.0)
    assert bool(found.reached.all())
    torch.testing.assert_close(found.cost, torch.full_like(found.cost, budget), rtol=0.02, atol=0)
    for way, length in zip(ways, found.length, strict=True):
        true = brentq(lambda s, v=way: kl_by_hand(text, s * v) - budget, 1e-6, 50.0)
        assert float(length) == pytest.approx(true, rel=0.02)
    torch.testing.assert_close(next_token_kl([text], found.pushes(ways)), found.cost)


def test_few_looks_are_needed():
    looks = []

    def cost(pushes: Tensor) -> Tensor:
        looks.append(len(pushes))
        return next_token_kl([linear_text()], pushes)

    spend(cost, units(8, D_IN, 5), 0.5, longest=20.0)
    assert len(looks) <= 10


def test_a_direction_that_does_nothing_is_out_of_reach_and_refused_by_name():
    text = linear_text()
    blind = lambda x: 0 * text.logits(x)
    unmoved = Predictions(text.acts, text.mask, blind(text.acts).log_softmax(-1), blind)
    found = spend(lambda pushes: next_token_kl([unmoved], pushes), units(1, D_IN, 1), 0.5, longest=20.0)
    assert not bool(found.reached.any()) and float(found.length) == 20.0
    with pytest.raises(ValueError, match=r"0\.5 nats is beyond reach of latent 7: .*smaller budget"):
        require_reached(found, 0.5, ["latent 7"], longest="ten times the median norm")


def test_a_cost_that_saturates_below_the_budget_is_out_of_reach():
    found = spend(lambda p: p.norm(dim=1).tanh(), units(2, D_IN, 1), 1.5, longest=9.0)
    assert not bool(found.reached.any())
    torch.testing.assert_close(found.cost, torch.full_like(found.cost, 9.0).tanh())


def test_of_several_lengths_at_the_budget_the_first_is_taken():
    # rises to 2 at length 1, falls to 0 at 2, rises without end
    cost = lambda p: 2 * (torch.pi / 2 * p.norm(dim=1)).sin().square() + (p.norm(dim=1) - 2).clamp_min(0)
    found = spend(cost, units(3, D_IN, 2), 1.0, longest=8.0)
    torch.testing.assert_close(found.length, torch.full_like(found.length, 0.5), rtol=0.02, atol=0)


def test_a_jump_over_the_budget_ends_below_it():
    cost = lambda p: torch.where(p.norm(dim=1) < 1.25, 0.1, 9.0)
    found = spend(cost, units(2, D_IN, 2), 1.0, longest=8.0)
    assert bool(found.reached.all()) and float(found.cost.max()) == pytest.approx(0.1)
    torch.testing.assert_close(found.length, torch.full_like(found.length, 1.25), rtol=1e-4, atol=0)


def test_pushes_after_which_nothing_is_finite_are_beyond_the_budget():
    cost = lambda p: torch.where(p.norm(dim=1) < 4, 0.3 * p.norm(dim=1).square(), torch.nan)
    found = spend(cost, units(2, D_IN, 2), 0.9, longest=100.0)
    torch.testing.assert_close(found.length, torch.full_like(found.length, 3**0.5), rtol=0.02, atol=0)


def test_a_first_look_that_is_beyond_the_budget_already_is_followed_down():
    found = spend(lambda p: 1e6 * p.norm(dim=1).square(), units(2, D_IN, 2), 1e-2, longest=100.0)
    torch.testing.assert_close(found.length, torch.full_like(found.length, 1e-4), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("budget", "longest", "words"), [(0.0, 1.0, "budget"), (float("nan"), 1.0, "budget"), (0.5, -1.0, "longest")]
)
def test_no_budget_is_no_search(budget, longest, words):
    with pytest.raises(ValueError, match=words):
        spend(lambda p: p.norm(dim=1), units(1, D_IN, 1), budget, longest=longest)


def test_texts_of_which_nothing_is_kept_are_refused():
    text = linear_text()
    empty = Predictions(text.acts, torch.zeros_like(text.mask), text.clean[:0], text.logits)
    with pytest.raises(ValueError, match="kept"):
        next_token_kl([empty], units(1, D_IN, 1))
