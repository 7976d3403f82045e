"""The table of penalties on toys: closed forms besides its own, and codes that are no codes."""

import math

import pytest
import torch
from benchmarks.toys.penalty_table import hfs, nearest, pressures
from torch import Tensor


def exact(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ALWAYS = exact([1.0])[0]


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.9])
def test_local_ima_of_two_atoms(rho: float):
    atoms = exact([1, 0], [rho, math.sqrt(1 - rho**2)])
    assert pressures(exact([2, 3]), ALWAYS, atoms).local_ima == pytest.approx(-0.5 * math.log(1 - rho**2))
    assert pressures(exact([2, 0]), ALWAYS, atoms).local_ima == 0


def test_local_ima_of_a_code_that_uses_one_atom_twice_is_infinite():
    assert pressures(exact([1, 1]), ALWAYS, exact([1, 0], [1, 0])).local_ima == math.inf


def test_hfs_of_a_full_grid_is_zero_and_of_a_missing_corner_its_distance():
    assert hfs(exact([0, 0], [0, 1], [1, 0], [1, 1])) == 0
    assert hfs(exact([0, 0], [1, 0], [0, 1])) == 1
    assert hfs(exact([0, 0], [3, 0], [0, 2])) == 4


def test_hfs_of_latents_with_different_numbers_of_values():
    states = exact([0, 0], [1, 0], [2, 0], [0, 5], [1, 5])
    assert hfs(states) == 1  # the corner (2, 5) is 1 away from (1, 5)


def test_hfs_of_one_latent_is_not_a_number():
    assert math.isnan(hfs(exact([0], [1])))


def test_the_nearest_atom_may_be_no_neighbour_at_all():
    closeness, neighbour = nearest(exact([1, 0], [-1, 0]))
    assert closeness.tolist() == [0, 0] and neighbour.tolist() == [1, 0]
    assert nearest(exact([1, 0]))[0].tolist() == [0]


def test_dead_latents_and_constant_ones_charge_nothing_for_dependence():
    codes = exact([0, 1, 0.1, 0], [0, 1, 0.1, 1])
    found = pressures(codes, exact([0.5, 0.5])[0], torch.eye(4, dtype=torch.float64))
    assert (found.correlation, found.total_correlation, found.support, found.l0) == (0, 0, 1, 2.5)


def test_states_that_never_occur_change_nothing():
    atoms, weights = torch.eye(2, dtype=torch.float64), exact([0.5, 0.5])[0]
    once = pressures(exact([0, 0], [1, 1]), weights, atoms)
    assert pressures(exact([0, 0], [1, 1], [0, 7]), torch.cat([weights, exact([0.0])[0]]), atoms) == once


@pytest.mark.parametrize(
    ("codes", "weights", "atoms", "why"),
    [
        (exact([1.0], [0.0]), exact([0.5, 0.4])[0], exact([1.0]), "sum to 0.9"),
        (exact([-1.0]), ALWAYS, exact([1.0]), "negative"),
        (exact([1.0]), ALWAYS, exact([2.0]), "unit vectors"),
    ],
)
def test_what_is_no_code_is_refused(codes: Tensor, weights: Tensor, atoms: Tensor, why: str):
    with pytest.raises(ValueError, match=why):
        pressures(codes, weights, atoms)
