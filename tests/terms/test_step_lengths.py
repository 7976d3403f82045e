"""Terms under a budget of next-token KL: lengths that follow it, and effects per unit of its root."""

import math
from dataclasses import replace

import pytest
import torch
from tests.causal.slices import units
from tests.causal.test_push_length import D_IN, fisher, linear
from tests.slices import firing_step
from torch import Tensor

from unbraid.objective.objective import Step
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.statistics.step_lengths import LENGTHS, lengths_of, shares_of

ATOMS = units(3, D_IN, 11)
ALL = torch.arange(3)
BUDGET = 1e-6
"""So small that KL is quadratic in the push."""


def made(memory: dict[str, Tensor] | None = None) -> Step:
    return firing_step(ATOMS, linear().contexts, memory=memory or {})


def at_budget() -> Tensor:
    """The lengths at which 1/2 (l v)' F (l v) is the budget."""
    return (2 * BUDGET / ((ATOMS @ fisher()) * ATOMS).sum(1)).sqrt()


def test_lengths_come_to_the_budget_by_doublings_and_halvings():
    now, shares = made(), torch.zeros(3)
    torch.testing.assert_close(lengths_of(now, ALL, 1e-3), torch.full((3, 1), 1e-3).double())
    for _ in range(12):
        shares = shares_of(now, ALL, lengths_of(now, ALL, 1e-3) * ATOMS, BUDGET, 1.0)
    torch.testing.assert_close(now.memory[LENGTHS], at_budget(), rtol=0.02, atol=0)
    torch.testing.assert_close(shares, torch.ones(3).double(), rtol=0.02, atol=0)


def test_a_latent_that_was_never_pushed_starts_at_the_radius_and_one_that_was_restarted_too():
    now = made({LENGTHS: torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)})
    assert lengths_of(now, ALL, 7.0).squeeze(1).tolist() == [0.5, 7.0, 2.0]


def test_a_share_falls_as_the_root_of_kl():
    way = (0.8 * at_budget()).unsqueeze(1) * ATOMS
    push = way.clone().requires_grad_()
    shares = shares_of(made_with_lengths(), ALL, push, BUDGET, 1.0)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 0.8).double(), rtol=0.02, atol=0)
    (slope,) = torch.autograd.grad(shares.log().sum(), push)
    torch.testing.assert_close((slope * way).sum(1), torch.full((3,), -1.0).double(), rtol=0.02, atol=0)


def made_with_lengths() -> Step:
    now = made()
    lengths_of(now, ALL, 1.0)
    return now


def test_melbo_pays_for_effect_per_root_kl_whatever_the_length():
    """At any small length the reward is that of the effect at the budget: |M' v| times the length there."""
    after = linear().contexts
    expected = torch.stack([(after.downstream(v.view(1, 1, -1))).norm() for v in ATOMS]) * at_budget()
    term = MelboReward(radius=1.0, cap=0.0, decay=math.nextafter(1.0, 0.0), budget_kl=BUDGET)
    for factor in (0.5, 1.0):
        memory = {"usual_size": torch.ones(()).double(), LENGTHS: factor * at_budget()}
        out = term(made(memory))
        torch.testing.assert_close(-out.loss, expected.log().mean(), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("term", [MelboReward(radius=1e-2, budget_kl=BUDGET), Effect(radius=1e-2, budget_kl=BUDGET)])
def test_under_a_budget_the_gradient_is_not_that_of_the_fixed_radius(term):
    gradients = []
    for each in (term, replace(term, budget_kl=0.0)):
        now = made()
        each(now).loss.backward()
        assert now.dictionary.W_dec.grad is not None and bool(now.dictionary.W_dec.grad.isfinite().all())
        gradients.append(torch.nn.functional.normalize(now.dictionary.W_dec.grad, dim=1))
    assert float((gradients[0] * gradients[1]).sum(1).max()) < 0.99


@pytest.mark.parametrize("term", [MelboReward(radius=1.0, budget_kl=0.5), Effect(radius=1.0, budget_kl=0.5)])
def test_a_budget_where_nothing_is_predicted_is_refused(term):
    silent = replace(linear().contexts, predict=None)
    with pytest.raises(ValueError, match="these contexts predict no tokens"):
        term(firing_step(ATOMS, silent, memory={}))
