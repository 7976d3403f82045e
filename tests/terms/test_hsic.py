"""HSIC of all pairs: a value by hand, the kernel its waves stand for, and dependence that correlation cannot see."""

import math

import pytest
import torch
from tests.coded import sparse, step

from unbraid.terms.correlation import Correlation
from unbraid.terms.hsic import Hsic, features


def test_a_value_worked_out_by_hand():
    # Both latents are (2, 0) or (0, 2) in either half, of rms 2 and deviation 1: u is 1 where active, scaled by 2, and
    # one wave of frequency 1 adds sin 1 and 1 - cos 1. Every feature has covariance product/2 with every other.
    copies = torch.tensor([[2.0, 2.0], [2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]).double()
    order = lambda seed: torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    seed = next(seed for seed in range(9) if (order(seed)[:2] < 2).sum() == 1)
    size = 4 * (1 + math.sin(1) ** 2 + (1 - math.cos(1)) ** 2)
    assert Hsic(waves=1)(step(copies, seed=seed)).loss.item() == pytest.approx(2 * (size / 2) ** 2 / 2)


@pytest.mark.parametrize(("waves", "error"), [(2, 3e-2), (3, 2e-3)])
def test_waves_are_a_gaussian_kernel(waves: int, error: float):
    """Centred, as every sum over pairs is."""
    u = torch.linspace(0, 1.8, 40).double().unsqueeze(1)
    centre = torch.eye(40).double() - 1 / 40
    phi = features(u, waves)[:, 1:]
    kernel = torch.exp(-(u - u.T).square() / 2)
    torch.testing.assert_close(centre @ phi @ phi.T @ centre, centre @ kernel @ centre, atol=error, rtol=0)
    assert torch.equal(features(torch.zeros(1, 1).double(), waves), torch.zeros(1, 1 + 2 * waves).double())


def test_independent_latents_give_zero_on_average():
    found = torch.tensor([Hsic()(step(sparse(256, 60, 0.1, seed), seed=seed)).loss.item() for seed in range(60)])
    assert abs(found.mean()) < 3 * found.std() / len(found) ** 0.5


def test_copies_give_between_one_and_four():
    codes = sparse(4096, 6, 0.1)
    assert 1 < Hsic(rows=4096)(step(torch.cat([codes, codes], 1))).loss.item() < 4


def test_it_sees_what_correlation_does_not():
    """Two latents always on, the second far where the first is far from its middle, to either side."""
    rng = torch.Generator().manual_seed(0)
    first = 1 + torch.rand(4096, 1, generator=rng).double()
    second = 1 + 4 * (first - 1.5).square()
    alone = 1 + torch.rand(4096, 1, generator=rng).double()
    of = lambda term, codes: term(step(codes)).loss.item()
    related, unrelated = torch.cat([first, second], 1), torch.cat([first, alone], 1)
    assert abs(of(Correlation(rows=4096), related)) < 0.01
    assert of(Hsic(rows=4096, waves=2), related) > 5 * abs(of(Hsic(rows=4096, waves=2), unrelated))


def test_the_scale_of_a_latent_does_not_matter():
    codes = sparse(300, 8, 0.2)
    codes[:, 1] += codes[:, 0]
    scales = torch.logspace(-3, 3, 8).double()
    assert Hsic()(step(codes * scales)).loss.item() == pytest.approx(Hsic()(step(codes)).loss.item())
