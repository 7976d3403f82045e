"""Information: closed forms, an oracle, and pairs that only seem to share bits."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from sklearn.metrics import mutual_info_score

from unbraid.metrics.information import (
    binary_entropy,
    entropy,
    mutual_information,
    quantile_gates,
    support_bits,
    total_correlation,
)
from unbraid.metrics.sparse_counts import active_rows


def column(*values: float) -> csr_array:
    return csr_array(np.array(values, dtype=np.float64)[:, None])


def test_entropies_by_hand():
    assert entropy(torch.tensor([0.5, 0.25, 0.25, 0.0])) == 1.5
    assert binary_entropy(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("n", [2, 16, 1024])
def test_total_correlation_of_a_one_hot_code(n: int):
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    found = total_correlation(torch.eye(n, dtype=torch.bool), weights)
    p = 1 / n
    closed = n * -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) - math.log2(n)
    assert found.item() == pytest.approx(closed)
    if n == 16:
        assert found.item() == pytest.approx(1.3966, abs=5e-5)
    assert found < 1 / math.log(2)  # the limit: log2(e) bits, however many latents


def test_total_correlation_of_independent_gates_is_zero_and_of_copies_the_repeated_bits():
    corners = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
    weights = torch.full((4,), 0.25, dtype=torch.float64)
    assert total_correlation(corners[:, :2], weights) == pytest.approx(0)
    assert total_correlation(corners, weights) == pytest.approx(1)
    assert [float(b) for b in support_bits(corners, weights)] == pytest.approx([2, 3])


def test_a_latent_that_is_the_factor_has_all_its_bits_and_so_has_its_negation():
    factor = [1, 0, 0, 0] * 50
    latents = csr_array(np.array([factor, [1 - f for f in factor]]).T.astype(float) * 0.7)
    bits = mutual_information(latents, column(*factor))
    assert bits.flatten().tolist() == pytest.approx([float(binary_entropy(torch.tensor(0.25)))] * 2)


def test_magnitudes_tell_what_the_gate_does_not():
    """Active in every row; large in those of the factor. Bins of the gate alone would see nothing."""
    factor = [1, 0] * 100
    latent = column(*(1.0 + f + 0.001 * i for i, f in enumerate(factor)))
    assert mutual_information(latent, column(*factor)).item() == pytest.approx(1)
    assert mutual_information(column(*([1.0] * 200)), column(*factor)).item() == 0


def test_bins_are_quantiles_of_active_values_and_equal_values_stay_together():
    latents = csr_array(np.array([[0, 8, 3.0], [5, 6, 3], [1, 4, 3], [9, 2, 0], [7, 0, 3], [3, -1, 0]]))
    bins = quantile_gates(latents, 2)
    assert active_rows(bins).tolist() == [3, 2, 3, 2, 4, 0]
    assert bins.toarray()[:, 0].tolist() == [0, 1, 1, 0, 0, 1]
    assert bins.toarray()[:, 3].tolist() == [1, 1, 0, 0, 0, 0]


def test_counts_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    latents = csr_array(random_array((500, 9), density=0.3, rng=rng))
    factors = csr_array(random_array((500, 7), density=0.2, rng=rng))
    bins = (quantile_gates(latents, 4).toarray().reshape(500, 9, 4) * np.arange(1, 5)).sum(-1)
    expected = [
        [mutual_info_score(bins[:, i], factors.toarray()[:, j] > 0) / math.log(2) for j in range(7)] for i in range(9)
    ]
    torch.testing.assert_close(mutual_information(latents, factors, errors=math.inf), torch.tensor(expected))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    latents = csr_array(random_array((300, 50), density=0.1, rng=rng))
    factors = csr_array(random_array((300, 11), density=0.1, rng=rng))
    whole = mutual_information(latents, factors, errors=math.inf)
    monkeypatch.setattr("unbraid.metrics.information.CHUNK_ENTRIES", 4 * 11 * 7)
    assert torch.equal(mutual_information(latents, factors, errors=math.inf), whole)


def test_independent_pairs_keep_no_bits():
    """Without the test they would have 9e-5 bits each, and twenty thousand of them more than any factor here."""
    rng = np.random.default_rng(2)
    latents = csr_array(random_array((8192, 400), density=0.02, rng=rng))
    factors = csr_array(random_array((8192, 50), density=0.02, rng=rng))
    assert mutual_information(latents, factors, errors=math.inf).sum() > 1.0
    assert (mutual_information(latents, factors) > 0).sum() <= 1


def test_dead_latents_and_absent_factors_share_no_bits():
    silent = csr_array((20, 3))
    assert mutual_information(silent, csr_array(np.ones((20, 2)))).tolist() == [[0, 0]] * 3
    assert mutual_information(csr_array(np.ones((20, 3))), silent[:, :1]).shape == (3, 1)
    assert mutual_information(csr_array((20, 0)), silent).shape == (0, 3)
