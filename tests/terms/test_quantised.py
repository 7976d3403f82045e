"""Quantised latents: by hand, levels that follow the values, and codes of either form."""

import math

import pytest
import torch
from tests.steps import rng, step, units, with_atoms
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.objective.objective import Step
from unbraid.terms.reconstruction.quantised import Quantised
from unbraid.terms.reconstruction.reconstruction import Reconstruction


def exact(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def axes(x: Tensor, levels: Tensor | None = None) -> Step:
    """Two latents that read and write the axes."""
    return step(with_atoms(torch.eye(2).double()), x, memory={} if levels is None else {"levels": levels})


def test_the_loss_is_worked_out_by_hand():
    # Levels stay (decay 1). 3 rounds to 2, 2.4 to 2 and 1 to 1.5: squares 1, 0.16 and 0.25, of the error and of the
    # commitment alike; the zero stays zero.
    now = axes(exact([3, 1], [2.4, -5]), exact([1, 2], [1.5, 4]))
    now.x[1, 1] = 0.0
    out = Quantised(levels=2, commit=0.5, decay=1.0)(now)
    assert out.loss.item() == pytest.approx(1.5 * (1 + 0.16 + 0.25) / 2)
    assert out.metrics["levels_used"].item() == pytest.approx(3 / 2 ** (2 / 3))  # exp of the entropy of (1/3, 2/3)


def test_gradients_pass_straight_through_the_rounding():
    now = axes(exact([3, 1]), exact([1, 2], [1.5, 4]))
    loss = Quantised(levels=2, commit=0.5, decay=1.0)(now).loss
    (grad,) = torch.autograd.grad(loss, now.dictionary.b_enc)
    # Error x_hat - x = (-1, 0.5), as if values were 2 and 1.5; commitment pulls 3 to 2 and 1 to 1.5.
    assert grad.tolist() == pytest.approx([2 * -1 + 0.5 * 2 * 1, 2 * 0.5 + 0.5 * 2 * -0.5])


def test_first_levels_are_spread_around_the_first_values_and_unseen_latents_have_none():
    now = axes(exact([2, -1], [4, -1]))
    Quantised(levels=3, decay=1.0)(now)
    assert now.memory["levels"].tolist() == [[1, 3, 5], [0, 0, 0]]


def test_levels_move_to_the_mean_of_the_values_nearest_to_them():
    now = axes(exact([0.5, 0], [1.5, 0], [2.6, 0]), exact([1.2, 3], [1, 2]))
    Quantised(levels=2, decay=0.9)(now)
    torch.testing.assert_close(now.memory["levels"], exact([0.9 * 1.2 + 0.1 * 1.0, 0.9 * 3 + 0.1 * 2.6], [1, 2]))


def test_levels_find_the_magnitudes_there_are():
    """As k-means from one start may not for any magnitudes; these are where a start around their mean finds them."""
    magnitudes, memory, loss = torch.tensor([1.0, 2.0, 4.0, 5.0]).double(), {}, math.inf
    for seed in range(300):
        values = magnitudes[torch.randint(0, 4, (64, 2), generator=rng(seed))]
        now = step(with_atoms(torch.eye(2).double()), values, memory=memory)
        loss = Quantised(levels=4, decay=0.9)(now).loss.item()
        memory = now.memory
    torch.testing.assert_close(memory["levels"], magnitudes.expand(2, 4), atol=1e-6, rtol=0)
    assert loss == pytest.approx(0, abs=1e-9)


def test_codes_on_levels_cost_their_reconstruction_alone():
    levels = torch.full((6, 8), 100.0).double()
    dictionary = with_atoms(units(6, 4, seed=0))
    x = units(10, 4, seed=1)
    now = step(dictionary, x)
    levels[:, 0] = 1.0
    quantised = Quantised(decay=1.0)(step(dictionary, torch.zeros(10, 4).double(), memory={"levels": levels}))
    assert quantised.loss.item() == 0
    fine = torch.linspace(1e-4, 2, 20_000).double().expand(6, -1)
    near = Quantised(levels=20_000, decay=1.0)(step(dictionary, x, memory={"levels": fine})).loss.item()
    assert near == pytest.approx(Reconstruction()(now).loss.item(), rel=1e-3)


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_rounded_codes_decode_alike_in_both_forms(path):
    dictionary = with_atoms(units(40, 8, seed=2), TopK(6))
    now = step(dictionary, torch.randn(64, 8, generator=rng(3), dtype=torch.float64), path=path)
    out = Quantised(levels=4)(now)
    z, levels = now.z.dense().detach(), now.memory["levels"]
    first = z.sum(0) / (z > 0).sum(0).clamp_min(1)
    before = first.unsqueeze(1) * torch.tensor([0.25, 0.75, 1.25, 1.75])
    chosen = (before - z.unsqueeze(2)).abs().argmin(2)
    rounded = torch.where(z > 0, levels[torch.arange(40), chosen], 0.0)
    error = (rounded @ dictionary.W_dec - now.x).square().sum()
    assert out.loss.item() == pytest.approx(((error + (rounded - z).square().sum()) / 64).item())
