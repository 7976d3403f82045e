"""Detection: counts of pairs by hand, and which factor a latent stands for."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tests.known import EXACT, untrained
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.shared import untrained as baseline
from unbraid.evals.shared.observe import observe
from unbraid.metrics.detection import detection, f1, f1_pairs, represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors

ROWS = 1000


def seen(latents: list[np.ndarray], factors: list[np.ndarray]) -> LatentsAndFactors:
    return LatentsAndFactors(csr_array(np.array(latents).T.astype(float)), csr_array(np.array(factors).T.astype(float)))


def first(share: float) -> np.ndarray:
    """Active in the first rows."""
    return np.arange(ROWS) < share * ROWS


def test_pairs_are_counted_without_the_others():
    observed = observe(untrained(EXACT, 40), EXACT)
    pairs = [3, 3, 17, 0], [0, 5, 5, 23]
    latents, factors = map(torch.tensor, pairs)
    found = detection(observed, latents, factors)
    assert found.joint_counts.tolist() == observed.joint_counts[pairs].tolist()
    assert found.f1.tolist() == pytest.approx(f1(observed)[pairs].tolist())
    # A signed or scaled code fires all the same.
    scaled = LatentsAndFactors(observed.latents * -2.5, observed.factors * 3)
    assert detection(scaled, latents, factors).joint_counts.tolist() == found.joint_counts.tolist()


def test_f1_matches_each_factor_with_the_latent_that_detects_it():
    factors = [first(0.5), ~first(0.5), np.arange(ROWS) % 2 == 0]
    rows, columns = f1_pairs(seen([factors[2], first(0.4), np.zeros(ROWS), factors[1]], factors))
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 2, 1: 0, 3: 1}


def test_purity_is_measured_from_the_factors_own_share_of_rows():
    """The factor is active in 60 %; a latent whose firings are 80 % in it is halfway to purity, 79 % is not."""
    common = first(0.6)
    for hits, owner in ((80, 0), (79, -1)):
        latent = np.zeros(ROWS)
        latent[:hits], latent[ROWS - (100 - hits) :] = 1, 1
        assert represented_factor(seen([latent], [common])).tolist() == [owner]


def test_a_handful_of_firings_stand_for_nothing():
    rare = first(0.009)
    assert represented_factor(seen([rare], [rare])).tolist() == [-1]
    assert represented_factor(seen([first(0.01)], [first(0.01)])).tolist() == [0]


def test_chance_is_as_wide_and_as_sparse_and_the_same_again():
    x = EXACT.sample(512, seed=0).x
    latents = code_matrix(untrained(EXACT, 40), x)
    made, again = (baseline.untrained(40, baseline.matching_k(latents), x) for _ in range(2))
    assert code_matrix(made, x).shape == latents.shape and code_matrix(made, x).nnz == latents.nnz
    assert torch.equal(made.W_dec, again.W_dec)
    assert baseline.matching_k(csr_array((512, 40))) == 1
