"""Matching: the sparse way finds what the exact one finds, and always matches all it can."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import beta
from torch import Tensor

from unbraid.metrics.matching import best_atom_pairs, best_pairs, cosines, sparse_pairs


def random_atoms(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def total(similarity: Tensor, pairs: tuple[Tensor, Tensor]) -> float:
    return float(similarity[pairs].sum(dtype=torch.float64))


def test_the_matching_is_the_best_one_not_the_greedy_one():
    rows, columns = best_pairs(torch.tensor([[0.9, 0.8], [0.85, 0.1], [0.2, 0.3]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("shape", [(400, 400), (250, 600), (600, 250), (20, 300), (1, 5), (5, 1)])
@pytest.mark.parametrize("width", [4, 64])
def test_the_sparse_matching_is_the_exact_one(shape: tuple[int, int], width: int):
    similarity = cosines(random_atoms(shape[0], width, 0), random_atoms(shape[1], width, 1)).abs()
    sparse = sparse_pairs(lambda part: similarity[part], *shape)
    assert sparse[0].tolist() == sorted(set(sparse[0].tolist()))
    assert len(sparse[0]) == len(set(sparse[1].tolist())) == min(shape)
    assert total(similarity, sparse) == pytest.approx(total(similarity, best_pairs(similarity)), rel=1e-6)


def test_atoms_that_all_crowd_around_one_are_still_all_matched():
    """Every row has the same 32 candidates; the rest come by the columns' candidates or the diagonal."""
    crowd = torch.zeros(300, 16).index_fill(1, torch.tensor([0]), 1.0) + 0.01 * random_atoms(300, 16, 0)
    similarity = cosines(crowd, random_atoms(300, 16, 1)).abs()
    sparse = sparse_pairs(lambda part: similarity[part], 300, 300)
    assert len(set(sparse[0].tolist())) == len(set(sparse[1].tolist())) == 300
    exact = total(similarity, best_pairs(similarity))
    assert 0.999 * exact < total(similarity, sparse) <= exact + 1e-4


def test_a_permutation_is_undone_whatever_the_scale_and_sign(monkeypatch: pytest.MonkeyPatch):
    atoms = random_atoms(200, 16, 0)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    moved = atoms[order] * torch.linspace(-3, 3, 200).unsqueeze(1)
    assert best_atom_pairs(moved, atoms)[1].tolist() == order.tolist()
    monkeypatch.setattr("unbraid.metrics.matching.EXACT_ENTRIES", 0)
    monkeypatch.setattr("unbraid.metrics.matching.CHUNK_ENTRIES", 200 * 7)
    assert best_atom_pairs(moved, atoms)[1].tolist() == order.tolist()


def test_atoms_without_length_match_with_cosine_zero():
    atoms = torch.eye(3)
    silent = torch.tensor([[0.0, 0, 0], [0, 2, 0], [0, 0, 0]])
    rows, columns = best_atom_pairs(silent, atoms)
    assert cosines(silent, atoms)[rows, columns].sum() == 1 and columns[1] == 1


def test_similarities_that_are_not_numbers_are_refused():
    broken = torch.full((4, 4), math.nan)
    with pytest.raises(ValueError):
        best_pairs(broken)
    with pytest.raises(ValueError, match="NaN"):
        sparse_pairs(lambda part: broken[part], 4, 4)


def nearest_by_chance(count: int, width: int) -> float:
    """Mean largest |cosine| of a random direction with `count` others: cos^2 of one is Beta(1/2, (width - 1) / 2)."""
    return quad(lambda t: 1 - beta.cdf(t * t, 0.5, (width - 1) / 2) ** count, 0, 1, limit=200)[0]


def test_random_atoms_have_a_near_neighbour_by_chance():
    """.1485 at 16,384 atoms of width 768; sqrt(2 ln(count) / width) = .159 is too much."""
    assert nearest_by_chance(16_384, 768) == pytest.approx(0.149, abs=1e-3)
    some, all_others = random_atoms(1024, 768, 0), random_atoms(16_384, 768, 1)
    assert float(cosines(some, all_others).abs().amax(1).mean()) == pytest.approx(0.1485, abs=1e-3)


def test_matched_one_to_one_random_atoms_come_a_little_less_near():
    """Measured at 16,384 x 768, in 15 seconds: .1448."""
    atoms, others = random_atoms(1024, 96, 0), random_atoms(1024, 96, 1)
    matched = float(cosines(atoms, others).abs()[best_pairs(cosines(atoms, others).abs())].mean())
    assert 0.94 * nearest_by_chance(1024, 96) < matched < nearest_by_chance(1024, 96)
