"""Neighbours of latents and histograms of their values, on numbers worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from unbraid.metrics.neighbours import firing_together, nearest_atoms
from unbraid.metrics.value_histograms import value_histograms


def test_the_nearest_atoms_are_those_of_the_largest_cosine_whatever_its_sign():
    atoms = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 1.0], [1.0, 1.0]])
    near = nearest_atoms(atoms, 2)
    assert near.latents[0].tolist() == [2, 3]
    assert near.closeness[0] == pytest.approx([-3 / 10**0.5, 0.5**0.5])


def test_there_are_no_more_neighbours_than_other_atoms():
    assert nearest_atoms(torch.eye(3), 8).latents.shape == (3, 2)


def test_firing_together_is_the_correlation_of_who_fires():
    fires = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]]).T
    found = firing_together(csr_array(fires * 2.5), 2)
    assert found.latents.tolist() == [[1, -1], [0, -1], [-1, -1]]
    assert found.closeness[0, 0] == pytest.approx(np.corrcoef(fires[:, 0], fires[:, 1])[0, 1])


def test_firing_together_agrees_with_numpy_in_every_pair():
    codes = csr_array(np.random.default_rng(0).random((300, 12)) < 0.3).astype(float)
    found, phi = firing_together(csr_array(codes), 11), np.corrcoef(codes.toarray().T)
    for latent in range(12):
        positive = np.flatnonzero((phi[latent] > 0) & (np.arange(12) != latent))
        others = found.latents[latent][: len(positive)]  # equal correlations are in any order
        assert sorted(others.tolist()) == positive.tolist() and (found.latents[latent][len(positive) :] == -1).all()
        assert found.closeness[latent][: len(positive)] == pytest.approx(-np.sort(-phi[latent, positive]), abs=1e-5)
        assert found.closeness[latent][: len(positive)] == pytest.approx(phi[latent, others], abs=1e-5)


def test_latents_that_are_hardly_ever_silent_have_their_correlation_too():
    fires = np.ones((32_767, 3))
    for latent in range(3):
        fires[2 * latent : 2 * latent + 3, latent] = 0
    found = firing_together(csr_array(fires), 2)
    phi = np.asarray(np.corrcoef(fires.T))[0, 1]
    assert found.latents.tolist() == [[1, -1], [0, 2], [1, -1]]
    assert found.closeness[[0, 1, 1, 2], [0, 0, 1, 0]] == pytest.approx(phi, rel=1e-5)


def test_a_histogram_counts_every_firing_between_the_smallest_value_and_the_largest():
    codes = csr_array(np.array([[1.0, 0, -2.0], [2.0, 0, 4.0], [5.0, 0, 0], [3.0, 0, 1.0]]))
    found = value_histograms(codes, 4)
    assert found.counts.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]
    assert (found.lowest.tolist(), found.highest.tolist()) == ([1, 0, -2], [5, 0, 4])


def test_equal_values_are_one_bin():
    assert value_histograms(csr_array(np.full((6, 1), 0.5)), 3).counts.tolist() == [[0, 0, 6]]
