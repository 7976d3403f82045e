"""Total correlation of blocks: log densities by hand, zero for independent latents, ln 2 and more for copies."""

import math

import numpy as np
import pytest
import torch
from tests.coded import sparse, step
from tests.terms.test_pair_sums import columns
from torch import Tensor

from unbraid.terms.independence.total_correlation import (
    TotalCorrelation,
    active_rows,
    excess,
    fire_together,
    mean_log_density,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nats(codes: Tensor, *block: int, noise: float = 0.3) -> float:
    repeated = torch.tensor([block]).expand(20, -1)  # 20 draws of noise and of turns
    return excess(columns(codes), repeated, noise, rng()).mean().item()


def test_a_log_density_worked_out_by_hand():
    # Rows (1, 1), (1, 1), (0, 2), (0, 0), far apart beside the noise: densities 1/2, 1/2, 1/4, 1/4.
    points = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [0.0, 2.0], [9.0, 9.0]]]).double()
    there = torch.tensor([[True, True, True, False]])
    found = mean_log_density(points, there, 4, 0.01, rng())
    assert found.item() == pytest.approx((2 * math.log(1 / 2) + 2 * math.log(1 / 4)) / 4)


def test_a_log_density_of_neighbours_worked_out_by_hand():
    # Two rows one deviation apart, one deviation of noise: E log(1/2 (1 + exp(-(1 + 2 e) / 2))), e standard normal.
    points, there = torch.tensor([[[1.0], [1.5]]]).double(), torch.ones(1, 2, dtype=torch.bool)
    many = mean_log_density(points.expand(20_000, -1, -1), there.expand(20_000, -1), 2, 0.5, rng()).mean()
    e, w = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(40))
    wanted = (w / w.sum() * ((1 + torch.exp(-(1 + 2 * e) / 2)) / 2).log()).sum()
    assert many.item() == pytest.approx(wanted.item(), abs=0.01)


def test_rows_where_any_of_a_block_fires_are_found_after_turning():
    codes = torch.tensor([[1.0, 0.0, 5.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]).double()
    blocks = torch.tensor([[0, 1], [2, -1]])
    points, there = active_rows(columns(codes), blocks, torch.zeros_like(blocks))
    assert points[there].tolist() == [[1, 0], [2, 0], [0, 3], [5, 0]]
    points, there = active_rows(columns(codes), blocks, torch.tensor([[0, 3], [0, 0]]))
    assert points[there].tolist() == [[1, 0], [2, 3], [5, 0]]


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_independent_latents_have_none(rate: float):
    found = torch.tensor([nats(sparse(256, 2, rate, seed), 0, 1) for seed in range(8)])
    assert abs(found.mean()) < 0.05


def test_copies_of_a_gate_have_its_entropy():
    gate = (torch.rand(400, 1, generator=rng(1)) < 0.5).double()
    assert nats(gate.repeat(1, 2), 0, 1, noise=0.05) == pytest.approx(math.log(2), abs=0.05)
    assert nats(sparse(512, 1, 0.2).repeat(1, 2), 0, 1) > 0.3


def test_a_latent_missing_from_a_block_adds_nothing():
    codes = sparse(512, 1, 0.3).repeat(1, 2)
    assert nats(codes, 0, 1, -1, -1) == pytest.approx(nats(codes, 0, 1), abs=0.05)


def test_blocks_are_latents_that_fire_together():
    codes = sparse(512, 6, 0.2)
    codes[:, 1], codes[:, 4] = codes[:, 0], codes[:, 3]
    found = fire_together(columns(codes), 6, 4, 3.0, rng())
    assert sorted(sorted(block[block >= 0].tolist()) for block in found) == [[0, 1], [0, 1], [3, 4], [3, 4]]


def test_the_term_is_positive_for_copies_and_zero_on_average_for_independent_latents():
    codes = sparse(1024, 8, 0.2)
    copies = TotalCorrelation()(step(torch.cat([codes, codes], 1)))
    assert copies.metrics["blocks"] == 16 and copies.loss.item() > 0.25
    term = TotalCorrelation(excess=-100.0, size=2)  # blocks whatever fires together
    found = torch.tensor([term(step(sparse(1024, 8, 0.2, seed), seed=seed)).loss.item() for seed in range(16)])
    assert abs(found.mean()) < 3 * found.std() / 4 and abs(found.mean()) < 0.05


def test_descending_makes_latents_less_dependent():
    codes = sparse(512, 2, 0.5)
    codes[:, 1] = torch.where(codes[:, 0] > 0, 0.5 * codes[:, 0] + 0.5 * codes[:, 1] + 0.1, codes[:, 1])
    codes.requires_grad_()
    term = TotalCorrelation(rows=512, excess=-100.0)
    (grad,) = torch.autograd.grad(term(step(codes)).loss, codes)
    assert nats((codes - 20 * grad).clamp_min(0).detach(), 0, 1) < nats(codes.detach(), 0, 1)
