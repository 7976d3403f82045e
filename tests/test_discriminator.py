"""The discriminator: a logit by hand, Adam as torch's, and a ratio it can learn."""

import math

import pytest
import torch
from torch.nn.functional import softplus

from unbraid.terms.statistics.discriminator import fresh, logits, parameters, power_step, trained

LIKE = torch.zeros(1, dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_logit_worked_out_by_hand():
    """Single numbers for matrices: their largest singular value is their size, which leaves signs."""
    state = {f"weight.{layer}": torch.tensor([[w]]).double() for layer, w in enumerate((2.0, 3.0, -4.0))}
    state |= {f"bias.{layer}": torch.tensor([b]).double() for layer, b in enumerate((0.5, 0.0, 1.0))}
    state |= {f"singular.{layer}": torch.ones(1).double() for layer in range(3)}
    rows = torch.tensor([[1.0], [-1.5]]).double()
    assert logits(state, rows).tolist() == pytest.approx([4 * (-1.5 + 1), 4 * (0.2 * 0.2 * 1 + 1)])


def test_no_row_moves_a_logit_by_more_than_four_times_its_length():
    state = fresh(6, LIKE, rng())
    for _ in range(200):
        state |= {f"singular.{layer}": power_step(state, layer) for layer in range(3)}
    one, other = torch.randn(2, 500, 6, generator=rng(1), dtype=torch.float64)
    moved = (logits(state, one) - logits(state, other)).abs()
    assert bool((moved <= 4.001 * (one - other).norm(dim=1)).all())


def test_training_is_adam():
    state = fresh(3, LIKE, rng())
    free = {name: state[name].clone().requires_grad_() for name in parameters(state)}
    optimiser = torch.optim.Adam(free.values(), lr=1e-3, betas=(0.5, 0.9))
    for seed in range(3):
        codes, mixed = torch.randn(2, 20, 3, generator=rng(seed), dtype=torch.float64)
        turned = {f"singular.{layer}": power_step(state, layer) for layer in range(3)}
        state = trained(state, codes, mixed, 1e-3, (0.5, 0.9))
        optimiser.zero_grad()
        loss = softplus(-logits(free | turned, codes)).mean() + softplus(logits(free | turned, mixed)).mean()
        loss.backward()
        optimiser.step()
    assert not any(value.requires_grad for value in state.values())
    assert all(value.is_contiguous() for value in state.values())  # or a restored one would train differently
    for name, value in free.items():
        torch.testing.assert_close(state[name], value.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_it_learns_which_way_two_coins_lean_and_understates_it():
    """Two gates that always agree: a ratio of 2 where they agree and 0 elsewhere, too steep for a bounded slope."""
    state = fresh(2, LIKE, rng())
    for seed in range(200):
        gates = (torch.rand(256, 2, generator=rng(seed)) < 0.5).double()
        state = trained(state, gates[:, :1].repeat(1, 2), gates, 1e-3, (0.5, 0.9))
    found = logits(state, torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).double())
    assert bool((found[:2] > 0.3).all()) and bool((found[:2] < math.log(2)).all()) and bool((found[2:] < -1).all())
