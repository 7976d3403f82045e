"""The nearest atoms, in chunks."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.terms.statistics.nearest_atoms import drawn_neighbours, nearest_atoms


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(count: int, d_in: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, d_in, generator=rng(seed), dtype=torch.float64), dim=1)


def test_the_nearest_atom_is_found_whatever_the_rows_at_once():
    atoms = units(20, 5, seed=2)
    part = torch.randperm(20, generator=rng(3))[:13]
    cosines = (atoms[part] @ atoms[part].T).fill_diagonal_(-2)
    for rows in (1, 4, 100):
        assert torch.equal(nearest_atoms(atoms, part, rows), part[cosines.argmax(1)])


def test_an_atom_alone_in_its_chunk_is_its_own_neighbour():
    assert nearest_atoms(units(3, 4, seed=4), torch.tensor([2])).tolist() == [2]


def test_neighbours_are_drawn_within_chunks():
    atoms = units(20, 5, seed=5)
    order, nearest, cosines = drawn_neighbours(atoms, 8, rng(6))
    assert sorted(order.tolist()) == list(range(20))
    for part, near in zip(order.split(8), nearest.split(8), strict=True):
        assert torch.equal(near, nearest_atoms(atoms, part))
    torch.testing.assert_close(cosines, (atoms[order] * atoms[nearest]).sum(1))


def test_an_atom_without_others_in_its_chunk_has_no_cosine_to_lower():
    order, nearest, cosines = drawn_neighbours(units(5, 5, seed=5), 2, rng(6))
    assert nearest[-1] == order[-1] and cosines[-1] == 0 and (cosines[:-1] != 0).all()
