"""Correlations of sparse columns equal those of dense ones."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from scipy.stats import rankdata

from unbraid.metrics.correlation import correlations, ranks


def sparse(rows: int, columns: int, density: float, seed: int) -> csr_array:
    """Signed, with ties."""
    rng = np.random.default_rng(seed)
    values = lambda size: rng.integers(1, 6, size) - 2.5
    return csr_array(random_array((rows, columns), density=density, rng=rng, data_sampler=values))


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_correlations_are_pearsons(density: float):
    ours, theirs = sparse(300, 12, density, 0), sparse(300, 7, density, 1)
    expected = np.corrcoef(ours.toarray().T, theirs.toarray().T)[:12, 12:]
    assert correlations(ours, theirs).numpy() == pytest.approx(expected, abs=1e-6)


def test_columns_that_never_vary_correlate_with_nothing():
    constant = csr_array(np.column_stack([np.zeros(9), np.full(9, 0.1), np.arange(9.0)]))
    found = correlations(constant, constant)
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert correlations(csr_array((9, 0)), constant).shape == (0, 3)


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_ranks_are_those_of_the_dense_columns_less_that_of_zero(density: float):
    matrix = sparse(80, 6, density, 2)
    expected = rankdata(matrix.toarray(), axis=0)
    found = ranks(matrix).toarray()
    for column in range(6):
        zero = matrix.toarray()[:, column] == 0
        shift = expected[zero, column][0] if zero.any() else (expected - found)[0, column]
        assert found[:, column] + shift == pytest.approx(expected[:, column])


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = sparse(50, 12, 0.3, 0), sparse(50, 7, 0.3, 1)
    whole = correlations(ours, theirs)
    monkeypatch.setattr("unbraid.metrics.correlation.CHUNK_ENTRIES", 7 * 5)
    assert torch.equal(correlations(ours, theirs), whole)
