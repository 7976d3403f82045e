"""HSIC of all pairs: a value by hand, the kernel its waves stand for, and dependence that correlation cannot see."""

import math

import pytest
import torch
from tests.coded import sparse, step

from unbraid.terms.independence.correlation import Correlation
from unbraid.terms.independence.hsic import Hsic, drawn, features


def test_a_value_worked_out_by_hand():
    # Both latents are (2, 0) or (0, 2) in either half, of rms 2 and deviation 1: u is 1 where active, scaled by 2, and
    # a wave of frequency w adds sin w and 1 - cos w. Every feature has covariance product/2 with every other. Sizes add
    # up: sin^2 + (1 - cos)^2 = 2 - 2 cos has mean 2 - 2 exp(-1/2), and the two latents draw theirs apart.
    copies = torch.tensor([[2.0, 2.0], [2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]).double()
    order = lambda seed: torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    seed = next(seed for seed in range(9) if (order(seed)[:2] < 2).sum() == 1)
    rng = torch.Generator().manual_seed(seed)
    torch.randperm(4, generator=rng)
    first, second = (4 * (1 + 2 - 2 * math.cos(w)) for (w,) in drawn(2, 1, rng).tolist())
    assert Hsic(waves=1)(step(copies, seed=seed)).loss.item() == pytest.approx(2 * first * second / 4 / 2, rel=1e-5)
    waves = drawn(20_000, 1, torch.Generator().manual_seed(0))
    assert (2 - 2 * waves.cos()).mean() == pytest.approx(2 - 2 * math.exp(-0.5), abs=0.02)


@pytest.mark.parametrize("waves", [1, 2, 4])
def test_fault_08_waves_are_a_gaussian_kernel_on_average_at_any_distance(waves: int):
    """Two fixed waves were none beyond a distance of 2. Centred, as every sum over pairs is."""
    u = torch.linspace(0, 6, 13).double().unsqueeze(1)
    centre = torch.eye(13).double() - 1 / 13
    rng = torch.Generator().manual_seed(0)
    total, draws = torch.zeros(13, 13).double(), 4000
    for frequencies in drawn(draws, waves, rng).double():
        phi = features(u, frequencies.expand(13, waves))[:, 1:]
        total += centre @ phi @ phi.T @ centre / draws
    kernel = centre @ torch.exp(-(u - u.T).square() / 2) @ centre
    torch.testing.assert_close(total, kernel, atol=0.05, rtol=0)
    zero = features(torch.zeros(1, 1).double(), torch.ones(1, waves).double())
    assert torch.equal(zero, torch.zeros(1, 1 + 2 * waves).double())


@pytest.mark.slow
def test_fault_08_dependent_latents_give_the_kernels_hsic_and_independent_ones_zero():
    """Three values each, one of them far out; the population's HSIC is a finite sum."""
    values = torch.tensor([0.0, 1.0, 5.0]).double()
    joint = torch.tensor([[0.80, 0.03, 0.02], [0.02, 0.05, 0.01], [0.01, 0.01, 0.05]]).double()
    for table in (joint, joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)):
        rng, memory, found = torch.Generator().manual_seed(0), {}, []
        for seed in range(60):
            cell = torch.multinomial(table.flatten(), 1024 * 40, replacement=True, generator=rng).view(1024, 40)
            codes = torch.cat([values[cell // 3], values[cell % 3]], 1)  # 40 pairs, so the sum over 80 latents is one's
            with torch.no_grad():
                found.append(Hsic()(step(codes, seed=seed, memory=memory)).loss.item())
        late = torch.tensor(found[30:])
        error = late.std() / len(late) ** 0.5
        assert abs(late.mean() - population(table, values)) < 3 * error
        assert error < 0.02


def population(table: torch.Tensor, values: torch.Tensor) -> float:
    """E k l + E k E l - 2 E[E k E l], with k and l the kernels of the two marginals."""

    def kernel(share: torch.Tensor) -> torch.Tensor:
        square, mean = share @ values.square(), share @ values
        rms = (square / share[1:].sum()).sqrt()
        u = values / rms
        apart = u.unsqueeze(1) - u
        return (u.unsqueeze(1) * u + torch.exp(-apart.square() / 2)) * rms**2 / (square - mean**2)

    p, q = table.sum(1), table.sum(0)
    k, l = kernel(p), kernel(q)  # noqa: E741 (the two kernels' usual names)
    both = torch.einsum("ij,kl,ik,jl", table, table, k, l)
    return float(both + (p @ k @ p) * (q @ l @ q) - 2 * torch.einsum("ij,i,j", table, k @ p, l @ q))


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
