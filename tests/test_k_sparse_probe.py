"""The few latents that tell a factor: those that speak for it and add something, the best first."""

import numpy as np
from scipy.sparse import csr_array

from unbraid.metrics.k_sparse_probe import Labels, k_sparse

ACTIVE = np.arange(400) < 200
"""The factor is active in the first half of the rows."""


def taken(*columns: np.ndarray) -> tuple[list[int], float]:
    both = Labels(csr_array(np.stack([np.asarray(column, dtype=float) for column in columns], 1)), ACTIVE)
    found = k_sparse(both, both)
    return found.latents.tolist(), found.f1


def rows(start: int, stop: int) -> np.ndarray:
    return (np.arange(400) >= start) & (np.arange(400) < stop)


def test_a_latent_that_is_the_factor_is_all_that_is_taken():
    assert taken(rows(0, 80), ACTIVE, rows(100, 180)) == ([1], 1.0)


def test_parts_are_taken_until_the_rest_adds_little():
    """Recalls 0.6, 0.9, 0.97 have F1 0.75, 0.947, 0.985; a last part that brings F1 to 1 adds less than 0.03."""
    large, middle, small, rest = rows(0, 120), rows(120, 180), rows(180, 194), rows(194, 200)
    latents, f1 = taken(rest, small, middle, large)
    assert latents == [3, 2, 1] and abs(f1 - 2 * 194 / 394) < 1e-9


def test_latents_that_speak_against_the_factor_are_not_taken():
    assert taken(rows(200, 400), rows(300, 400)) == ([], 0.0)


def test_a_second_copy_is_not_taken():
    assert len(taken(ACTIVE, ACTIVE)[0]) == 1


def test_dead_latents_are_not_taken():
    dead = np.zeros(400)
    assert taken(dead, ACTIVE, dead) == ([1], 1.0) and taken(dead, dead) == ([], 0.0)


def test_the_units_of_the_codes_do_not_matter():
    large, middle = rows(0, 150), rows(150, 200)
    assert taken(1e-3 * large, 1e-3 * middle) == taken(1e3 * large, 1e3 * middle) == ([0, 1], 1.0)
