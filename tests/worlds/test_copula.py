"""Sparse draws of correlated roots: the marginals and every pair's joint probability are the copula's, exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from unbraid.sources.world.copula import Copula, distinct, independent, rate

P = torch.tensor([0.01, 0.05, 0.2, 0.5, 0.9, 0.05, 0.2, 0.5], dtype=torch.float64)
GROUPS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
LOADINGS = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
ROWS, DRAWS = 20_000, 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def active(places: tuple[torch.Tensor, torch.Tensor], count: int, items: int = len(P)) -> torch.Tensor:
    return torch.zeros(count, items, dtype=torch.float64).index_put(places, torch.tensor(1.0, dtype=torch.float64))


def joint(i: int, j: int, correlation: float) -> float:
    """P(i and j) by the distribution function of the bivariate normal."""
    overlap = correlation * float(LOADINGS[GROUPS[i]] @ LOADINGS[GROUPS[j]])
    cut = norm.ppf([float(P[i]), float(P[j])])
    pair = multivariate_normal(cov=np.array([[1, overlap], [overlap, 1]]))  # pyright: ignore[reportArgumentType]
    return float(pair.cdf(cut))


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.6, 0.97])
def test_marginals_and_pairs_are_those_of_the_gaussian_copula(correlation: float):
    copula, rng = Copula(P, correlation, GROUPS, LOADINGS), generator()
    fired = torch.cat([active(copula.fire(ROWS, rng), ROWS) for _ in range(DRAWS)])
    together = fired.T @ fired / len(fired)
    for i in range(len(P)):
        for j in range(i + 1):
            p = float(P[i]) if i == j else joint(i, j, correlation)
            assert abs(float(together[i, j]) - p) <= 4.5 * math.sqrt(p * (1 - p) / len(fired)) + 1e-6, (i, j)


def test_independent_items_fire_as_often_as_stated_and_never_twice():
    rows, items = independent(P, 50_000, generator())
    assert len(torch.unique(rows * len(P) + items)) == len(rows)
    assert (rows.diff() >= 0).all() and rows.max() < 50_000
    rates = torch.bincount(items, minlength=len(P)) / 50_000
    assert ((rates - P).abs() < 4.5 * (P * (1 - P) / 50_000).sqrt()).all()


def test_how_many_fire_in_a_row_varies_as_independence_says():
    counts = active(independent(P, 50_000, generator()), 50_000).sum(1)
    assert counts.var().item() == pytest.approx(float((P * (1 - P)).sum()), rel=0.03)


@pytest.mark.parametrize("count", [1, 37])
def test_a_few_rows_are_drawn_like_many(count: int):
    copula, rng = Copula(P, 0.6, GROUPS, LOADINGS), generator()
    fired = torch.cat([active(copula.fire(count, rng), count) for _ in range(500)])
    assert ((fired.mean(0) - P).abs() < 5 * (P * (1 - P) / 500).sqrt() + 1e-3).all()


def test_what_cannot_fire_does_not():
    rows, items = independent(torch.zeros(3, dtype=torch.float64), 100, generator())
    assert rows.numel() == items.numel() == 0


def test_rates_and_pairs_by_hand():
    torch.testing.assert_close(rate(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.0, math.log(2), 16.0]))
    rows, items = distinct(torch.tensor([1, 0, 1, 1]), torch.tensor([2, 1, 2, 0]), 3)
    assert rows.tolist() == [0, 1, 1] and items.tolist() == [1, 0, 2]
