"""Readouts: from which latents, how well, and of which factors."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.sparse_readout import FACTORS, area, chosen, read_out

ROWS = 4000


def forest(seed: int = 0) -> np.ndarray:
    """Four independent factors, and a child of the first."""
    rng = np.random.default_rng(seed)
    factors = rng.random((ROWS, 5)) < 0.2
    factors[:, 4] = factors[:, 0] & (rng.random(ROWS) < 0.5)
    return factors.astype(float)


def observed(latents: np.ndarray, factors: np.ndarray) -> LatentsAndFactors:
    return LatentsAndFactors(csr_array(latents), csr_array(factors))


def test_a_factor_is_read_from_its_own_latent_even_where_a_childs_tells_of_it():
    factors = forest()
    found = read_out(observed(factors[:, ::-1], factors))
    assert found.importance.argmax(0).tolist() == [4, 3, 2, 1, 0]
    assert found.importance.sum(0).tolist() == pytest.approx([1] * 5)
    assert found.importance.amax(0).min() > 0.9
    assert found.auc.min() == found.f1.min() == 1 and found.information.min() > 0.97


def test_a_factor_in_two_halves_is_read_from_both():
    factors = forest()
    halves = np.arange(ROWS)[:, None] % 2 == np.array([0, 1])
    found = read_out(observed(np.column_stack([factors[:, :1] * halves, factors[:, 1:]]), factors))
    assert found.importance[:2, 0].tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_noise_reads_nothing():
    rng = np.random.default_rng(1)
    noise = rng.random((ROWS, 30)) * (rng.random((ROWS, 30)) < 0.1)
    found = read_out(observed(noise, forest()))
    assert found.auc.mean() == pytest.approx(0.5, abs=0.03)
    assert found.information.mean() == pytest.approx(0, abs=0.03) and found.f1.max() < 0.05


def test_the_scale_of_a_latent_does_not_matter():
    factors = forest()
    scaled = read_out(observed(factors * np.array([1e-3, 1, 50, 2, 1e4]), factors))
    torch.testing.assert_close(scaled.importance, read_out(observed(factors, factors)).importance, atol=1e-3, rtol=0)


@pytest.mark.parametrize("width", [0, 3])
def test_dead_latents_read_the_rate(width: int):
    found = read_out(observed(np.zeros((ROWS, width)), forest()))
    assert found.importance.sum() == 0 and found.f1.sum() == 0
    assert found.auc.tolist() == [0.5] * 5
    assert found.information.tolist() == pytest.approx([0] * 5)


def test_factors_without_enough_rows_in_either_half_are_not_read():
    factors = forest()
    factors[:, 0] = 1
    factors[:, 1] = 0
    factors[ROWS // 2 :, 2] = 0
    found = read_out(observed(factors, factors))
    assert found.importance.shape == (5, 2)
    nothing = read_out(observed(factors, factors[:, :2]))
    assert nothing.importance.shape == (5, 0) and len(nothing.auc) == 0


def test_of_many_factors_some_of_every_frequency_are_read():
    counts = torch.arange(33, 33 + 3 * FACTORS)
    active = csr_array((torch.arange(400).unsqueeze(1) < counts).double().numpy())
    picked = chosen(active, active)
    assert len(picked) == FACTORS and picked[0] == 0 and picked[-1] == 3 * FACTORS - 1
    assert set(picked.diff().tolist()) <= {3, 4}


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns(ties: bool):
    rng = np.random.default_rng(0)
    probability, active = rng.random(500), rng.random(500) < 0.1
    probability = probability.round(1) if ties else probability
    assert area(probability, active) == pytest.approx(roc_auc_score(active, probability), rel=1e-12)
