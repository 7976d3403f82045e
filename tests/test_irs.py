"""Interventional robustness: the published definition on dense columns, and what it rewards."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from unbraid.metrics.irs import independent, robustness


def defined(z: np.ndarray, factors: np.ndarray) -> float:
    """As the paper has it, latent by latent."""
    largest = np.abs(z - z.mean(0)).max(0)
    best = np.full(z.shape[1], -np.inf)
    for active in factors.T > 0:
        groups = (z[active], z[~active])
        moved = sum(np.quantile(np.abs(own - own.mean(0)), 0.99, axis=0) for own in groups) / 2
        best = np.maximum(best, 1 - moved / np.where(largest > 0, largest, 1))
    return float(np.average(best[largest > 0], weights=largest[largest > 0]))


def codes(rows: int, columns: int, density: float, seed: int) -> csr_array:
    rng = np.random.default_rng(seed)
    return csr_array(random_array((rows, columns), density=density, rng=rng))


@pytest.mark.parametrize("density", [0.01, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("rows", [60, 701])
def test_it_is_the_published_definition(rows: int, density: float):
    signs = np.where(np.arange(20) % 2, 1.0, -1.0)
    z = csr_array(codes(rows, 20, density, 0).toarray() * signs)
    factors = csr_array((codes(rows, 5, 0.3, 1).toarray() > 0).astype(float))
    assert robustness(z, factors) == pytest.approx(defined(z.toarray(), factors.toarray()))


def test_a_latent_that_is_a_factor_does_not_move_while_it_stands_still():
    factors = csr_array((codes(400, 6, 0.3, 0).toarray() > 0).astype(float))
    assert robustness(factors, factors) == pytest.approx(1)
    assert robustness(codes(400, 6, 0.3, 1), factors) < 0.5


def test_rarity_alone_passes_for_robust():
    """Why it is reported beside chance: noise that fires in 0.3 % of rows."""
    factors = csr_array((codes(4000, 6, 0.3, 0).toarray() > 0).astype(float))
    assert robustness(codes(4000, 50, 0.003, 1), factors) > 0.95


def test_without_varying_latents_or_factors_it_is_not_a_number():
    some = codes(50, 3, 0.3, 0)
    assert math.isnan(robustness(csr_array((50, 4)), some))
    assert math.isnan(robustness(csr_array(np.ones((50, 4))), some))
    assert math.isnan(robustness(some, csr_array((50, 2))))
    assert math.isnan(robustness(some, csr_array(np.ones((50, 2)))))


def test_independent_factors_are_told_from_a_forest_and_from_exclusive_ones():
    rng = np.random.default_rng(0)
    crossed = rng.random((8192, 40)) < 0.05
    child = crossed[:, 0] & (rng.random(8192) < 0.5)
    exclusive = crossed[:, :2].copy()
    exclusive[:, 1] &= ~exclusive[:, 0]
    assert independent(csr_array(crossed.astype(float)))
    assert not independent(csr_array(np.column_stack([crossed, child]).astype(float)))
    assert not independent(csr_array(exclusive.astype(float)))
